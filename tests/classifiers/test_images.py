"""Sets of images: layouts, labels, what torchvision makes of the same files, and bad files."""

import json

import numpy as np
import pytest
import torch
import torchvision
import xarray as xr
from PIL import Image
from scipy.io import savemat
from torchvision import transforms
from torchvision.transforms import v2

import retina_codec as rc
from retina_codec.classifiers import Preprocessing, imagenet_names, open_images, pictures

PRESET = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms
SMALL = Preprocessing(resize=12, crop=(8, 8))


def pixels(seed, size=(20, 16)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(path, seed=0, size=(20, 16), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).convert(mode).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["cat/b.png", "cat/a.jpg", "dog/c.PNG", "dog/deep/d.png"]):
        write(tmp_path / "set" / name, i)
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "set" / "cat" / ".hidden.png").write_bytes(b"")
    return tmp_path / "set"


def test_a_folder_for_each_category(folder):
    images = open_images(folder, categories=["dog", "cat"])
    assert images.dims == ("image", "color", "y", "x")
    assert images.dtype == np.uint8
    assert images["image"].values.tolist() == [
        "cat/a.jpg",
        "cat/b.png",
        "dog/c.PNG",
        "dog/deep/d.png",
    ]
    assert images["label"].values.tolist() == ["cat", "cat", "dog", "dog"]
    assert images["color"].values.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(
        images.sel(image="cat/b.png").values, pixels(0).transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(images.sel(image="dog/c.PNG", color="green"), pixels(2)[..., 1])
    assert images.attrs["folder"] == str(folder)


def test_reads_what_is_looked_at_and_no_more(folder, monkeypatch):
    read = []
    original = pictures.read_picture
    monkeypatch.setattr(
        "retina_codec.classifiers.images.read_picture",
        lambda path, **options: read.append(path.name) or original(path, **options),
    )
    images = open_images(folder, preprocess=SMALL)
    assert read == []
    assert images.chunks is not None
    images[1:3].load()
    assert read == ["b.png", "c.PNG"]


def test_is_what_torchvision_makes_of_the_same_files(tmp_path):
    """Its own reader of folders, with the transforms of its own weights, bit for bit."""
    for i, size in enumerate([(300, 400), (401, 299), (230, 226), (90, 120)]):
        write(tmp_path / f"c{i % 2}" / f"{i}.jpg", i, size)
    write(tmp_path / "c0" / "grey.jpg", 7, (300, 300), "L")
    write(tmp_path / "c1" / "print.jpg", 8, (300, 300), "CMYK")
    write(tmp_path / "c1" / "map.png", 9, (300, 300), "P")
    model = rc.classifiers.resnet18(categories=["c0", "c1"], seed=1)
    images = open_images(tmp_path, preprocess=model.preprocess, categories=model.outputs)
    theirs = torchvision.datasets.ImageFolder(tmp_path, PRESET())
    inputs = torch.stack([x for x, _ in theirs])
    batch = next(iter(model.samples(images).batches(10)))
    torch.testing.assert_close(batch.inputs, inputs, rtol=0, atol=1e-6)
    assert [theirs.classes[k] for _, k in theirs] == images["label"].values.tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PRESET(), (256, (224, 224))),
        (PRESET(resize_size=232, crop_size=200), (232, (200, 200))),
        (
            transforms.Compose(
                [
                    transforms.Resize((9, 7)),
                    transforms.ToTensor(),
                    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                ]
            ),
            ((9, 7), None),
        ),
        (
            v2.Compose(
                [
                    v2.ToImage(),
                    v2.Resize(256),
                    v2.CenterCrop(224),
                    v2.ToDtype(torch.float32, scale=True),
                    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
                ]
            ),
            (256, (224, 224)),
        ),
    ],
)
def test_preprocessing_is_read_from_torchvisions_transforms(given, expected):
    found = Preprocessing.of(given)
    assert (found.resize, found.crop) == expected
    assert found.mean == (0.485, 0.456, 0.406)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    model = rc.classifiers.from_module(net, categories=["a", "b"], preprocess=given)
    short = rc.classifiers.from_module(
        net, categories=["a", "b"], mean=[0.485, 0.456, 0.406], sd=[0.229, 0.224, 0.225]
    )
    assert model.preprocess == found
    assert model.fingerprint == short.fingerprint  # the network sees the same
    with pytest.raises(ValueError, match="preprocess and mean or sd are given"):
        rc.classifiers.from_module(net, categories=["a", "b"], preprocess=given, mean=[0.5] * 3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (transforms.RandomCrop(5), TypeError, "'RandomCrop' is no step that is known"),
        (lambda x: x, TypeError, "'function' is no step that is known"),
        (
            transforms.Compose([transforms.CenterCrop(5), transforms.Resize(3)]),
            ValueError,
            "has Resize after crop",
        ),
    ],
)
def test_refuses_other_preprocessing(given, error, message):
    with pytest.raises(error, match=message):
        rc.classifiers.from_module(torch.nn.Linear(1, 2), categories=["a", "b"], preprocess=given)


def test_sizes_after_resizing_are_those_of_torchvision(tmp_path):
    for size in [(31, 47), (47, 31), (30, 30)]:
        path = write(tmp_path / f"{size[0]}.png", 0, size)
        resized = transforms.Resize(17)(Image.open(path))
        assert Preprocessing(resize=17).size_of(size) == resized.size[::-1]
    images = open_images(
        tmp_path, preprocess=Preprocessing(resize=(9, 11), interpolation="bicubic")
    )
    expected = np.asarray(Image.open(tmp_path / "31.png").resize((11, 9), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(images.sel(image="31.png"), expected.transpose(2, 0, 1))


# ImageNet


SYNSETS = [f"n{1_440_764 + 17 * i:08d}" for i in range(1000)]


@pytest.fixture
def validation(tmp_path):
    for i in (1, 2, 3):
        write(tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", i)
    return tmp_path / "val"


def kit(place):
    """A `meta.mat` whose numbers run against the alphabet, with an inner node."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(i + 1, SYNSETS[999 - i], 0) for i in range(1000)] + [(1001, "n99999999", 3)]
    savemat(place / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    return place / "meta.mat"


def test_validation_images_with_the_kits_ground_truth(validation, tmp_path):
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1000\n999\n1\n")
    model_names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    images = open_images(
        validation, labels=truth, names=imagenet_names(kit(tmp_path)), preprocess=SMALL
    )
    assert images["label"].values.tolist() == [model_names[0], model_names[1], model_names[-1]]
    with pytest.raises(ValueError, match=r"development kit's own numbers: give names=.*meta\.mat"):
        open_images(validation, labels=truth, categories=model_names, preprocess=SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "ILSVRC2012_val_00000002.JPEG 5\nILSVRC2012_val_00000001.JPEG 0\n"
        "ILSVRC2012_val_00000003.JPEG 1\n",
        f"{SYNSETS[0]}\n{SYNSETS[5]}\n{SYNSETS[1]}\n",
        "ImageId,PredictionString\n"
        f"ILSVRC2012_val_00000003,{SYNSETS[1]} 85 1 499 272 {SYNSETS[1]} 1 2 3 4\n"
        f"ILSVRC2012_val_00000001,{SYNSETS[0]} 85 1 499 272\n"
        f"ILSVRC2012_val_00000002,{SYNSETS[5]} 85 1 499 272\n",
    ],
)
def test_validation_images_with_lists_of_others(validation, tmp_path, text):
    (tmp_path / "val.txt").write_text(text)
    (tmp_path / "words.txt").write_text("".join(f"{s} some words\n" for s in SYNSETS))
    names = imagenet_names(tmp_path / "words.txt") if "n0" in text else None
    categories = rc.classifiers.published.default_names(
        torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"], 1000
    )
    images = open_images(
        validation,
        labels=tmp_path / "val.txt",
        names=names,
        categories=categories,
        preprocess=SMALL,
    )
    assert images["label"].values.tolist() == [categories[0], categories[5], categories[1]]


def test_folders_of_synsets(tmp_path):
    for name in (SYNSETS[2], SYNSETS[4]):
        write(tmp_path / "val" / name / "a.JPEG", 1)
    names = imagenet_names(SYNSETS[::-1])
    images = open_images(tmp_path / "val", names=names)
    assert images["label"].values.tolist() == [names[SYNSETS[2]], names[SYNSETS[4]]]
    assert names[SYNSETS[2]] == "great white shark"
    assert names[SYNSETS[134]] == "crane bird"
    for synset in SYNSETS:
        (tmp_path / "all" / synset).mkdir(parents=True)
    assert imagenet_names(tmp_path / "all") == names
    with pytest.raises(ValueError, match="synsets has 2 different synsets; expected the 1000"):
        imagenet_names(tmp_path / "val")
    (tmp_path / "meta.mat").write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"cannot be read as the development kit's meta\.mat"):
        imagenet_names(tmp_path / "meta.mat")


# Tables and arrays


def test_a_table_of_paths_and_labels(folder, tmp_path):
    table = tmp_path / "set" / "table.csv"
    table.write_text("label,path\nhund,dog/c.PNG\nkatze,cat/b.png\n")
    images = open_images(table, names={"hund": "dog", "katze": "cat"}, categories=["cat", "dog"])
    assert images["label"].values.tolist() == ["dog", "cat"]
    np.testing.assert_array_equal(images[0], pixels(2).transpose(2, 0, 1))
    table.write_text("path\ncat/b.png\n")
    assert "label" not in open_images(table).coords


def test_arrays_of_any_order(tmp_path):
    values = np.stack([pixels(i, (6, 5)) for i in range(4)])
    expected = values.transpose(0, 3, 1, 2)
    labels = np.array([1, 0, 0, 1])
    np.savez(tmp_path / "a.npz", images=values, labels=labels, class_names=["cat", "dog"], n=labels)
    np.save(tmp_path / "a.npy", values)
    named = xr.DataArray(
        values, dims=("image", "y", "x", "color"), coords={"label": ("image", list("tuuv"))}
    )
    for source, label in [
        (tmp_path / "a.npz", ["dog", "cat", "cat", "dog"]),
        (tmp_path / "a.npy", None),
        (values, None),
        (torch.from_numpy(expected.copy()), None),
        (named, list("tuuv")),
    ]:
        images = open_images(source)
        np.testing.assert_array_equal(images, expected)
        assert images.dims == ("image", "color", "y", "x")
        found = images["label"].values.tolist() if "label" in images.coords else None
        assert found == label
    assert open_images(tmp_path / "a.npz")["n"].values.tolist() == labels.tolist()
    turned = open_images(values.transpose(1, 0, 3, 2), dims=("y", "image", "color", "x"))
    np.testing.assert_array_equal(turned, expected)
    grey = open_images(values[..., 0] / 255, labels=labels)
    assert grey.sizes["color"] == 1
    assert grey["label"].values.tolist() == [1, 0, 0, 1]


def test_arrays_are_resized_like_files(tmp_path):
    values = np.stack([pixels(i, (20, 16)) for i in range(3)])
    for i, value in enumerate(values):
        Image.fromarray(value).save(tmp_path / f"{i}.png")
    of_files = open_images(tmp_path, preprocess=SMALL)
    np.testing.assert_array_equal(open_images(values, preprocess=SMALL), of_files)
    with pytest.raises(ValueError, match="dtype float64; resizing takes uint8"):
        open_images(values / 255, preprocess=SMALL)


def test_cifar_of_the_notes(real_data):
    images = open_images(real_data / "cifar10_test" / "cifar10_test_2000.npz")
    assert dict(images.sizes) == {"image": 2000, "color": 3, "y": 32, "x": 32}
    assert images["label"].values[::200].tolist() == list(rc.classifiers.cifar_resnet().outputs)
    np.testing.assert_allclose(
        images.mean(("image", "y", "x")), [126.766, 124.458, 116.008], atol=5e-4
    )
    assert images["source_index"].values[200] == 0


# Bad files


def damaged(path):
    write(path, 5, (60, 60), quality=95)
    path.write_bytes(path.read_bytes()[:1500])
    return path


def test_a_damaged_file_is_named_when_it_is_looked_at(folder):
    damaged(folder / "cat" / "bad.jpg")
    images = open_images(folder, preprocess=SMALL)
    images[:2].load()
    with pytest.raises(OSError, match=r"image .*cat/bad\.jpg cannot be read .*corrupted='skip'"):
        images.load()
    (folder / "cat" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"cat/b\.png does not exist"):
        images.sel(image="cat/b.png").load()


def test_damaged_files_are_left_out_by_option_and_named(folder):
    damaged(folder / "cat" / "bad.jpg")
    (folder / "dog" / "empty.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"2 of 6 images cannot be read .*cat/bad\.jpg"):
        images = open_images(folder, preprocess=SMALL, corrupted="skip")
    assert json.loads(images.attrs["skipped"]) == ["cat/bad.jpg", "dog/empty.png"]
    assert images["label"].values.tolist() == ["cat", "cat", "dog", "dog"]
    whole = open_images(folder, preprocess=SMALL)
    for name in images["image"].values:
        np.testing.assert_array_equal(images.sel(image=name), whole.sel(image=name))
    for file in folder.rglob("*.*"):
        file.write_bytes(b"x")
    with pytest.raises(ValueError, match="none of its images can be read"):
        open_images(folder, preprocess=SMALL, corrupted="skip")


def test_a_whole_file_is_not_left_out_for_want_of_memory(folder, monkeypatch):
    def no_memory(self):
        raise MemoryError

    monkeypatch.setattr(pictures.Image.Image, "load", no_memory)
    with pytest.raises(MemoryError):
        open_images(folder, preprocess=SMALL, corrupted="skip")


def test_other_colours_are_converted_or_refused(tmp_path):
    values = pixels(1)
    kinds = {"L": "grey", "1": "black and white", "P": "a palette", "CMYK": "CMYK"}
    for mode in kinds:
        write(tmp_path / f"{mode}.tif", 1, mode=mode)
    deep = np.linspace(0, 65535, 320).round().astype(np.uint16).reshape(20, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([values, np.full((20, 16), 255, np.uint8)])).save(tmp_path / "A.png")
    images = open_images(tmp_path)
    for mode in kinds:
        expected = np.asarray(Image.fromarray(values).convert(mode).convert("RGB"))
        np.testing.assert_array_equal(images.sel(image=f"{mode}.tif"), expected.transpose(2, 0, 1))
    grey = images.sel(image="deep.png").values
    np.testing.assert_allclose(grey, np.repeat((deep / 257)[None], 3, 0), atol=0.501)
    np.testing.assert_array_equal(images.sel(image="A.png"), values.transpose(2, 0, 1))
    strict = open_images(tmp_path, convert=False)
    for file, kind in {**{f"{m}.tif": k for m, k in kinds.items()}, "deep.png": "16 bits"}.items():
        with pytest.raises(ValueError, match=rf"{file} is .*{kind}; expected red, green and blue"):
            strict.sel(image=file).load()


@pytest.mark.parametrize(
    ("mode", "message"), [("RGBA", "transparent pixels"), ("F", "whose range")]
)
def test_refuses_colours_that_cannot_be_converted(tmp_path, mode, message):
    values = np.dstack([pixels(1), np.full((20, 16), 200, np.uint8)])
    picture = Image.fromarray(values if mode == "RGBA" else values[..., 0].astype(np.float32))
    picture.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=message):
        open_images(tmp_path).load()


def nothing(folder):
    for file in list(folder.rglob("*.*")):
        file.unlink()
    return {}


def another_size(folder):
    write(folder / "cat" / "c.png", 1, (21, 16))
    return {}


def beside(folder):
    write(folder / "e.png", 1)
    return {}


def empty(folder):
    (folder / "fish").mkdir()
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nothing, "has no pictures; expected files ending in .jpg"),
        (another_size, r"differ in size: cat/a.jpg is 20 x 16, cat/c.png 21 x 16 \(y, x\)"),
        (beside, r"pictures beside folders with pictures \(e.png, cat/a.jpg\)"),
        (empty, "folder 'fish' has no pictures"),
        (
            lambda f: {"categories": ["cat", "dogs"]},
            "label 'dog' of image 2 is not among the cat.*'dogs'",
        ),
        (lambda f: {"names": {"cat": "c"}}, "names has none for the label 'dog'"),
        (lambda f: {"labels": ["a", "b"]}, "labels has 2 labels; expected one for each of 4"),
        (lambda f: {"labels": {"a.jpg": 1}}, "labels has none for 'cat/b.png'"),
        (lambda f: {"corrupted": "drop"}, "corrupted='drop' is not known"),
        (
            lambda f: {"labels": [0, 1, 2, 0], "categories": ["a", "b"]},
            "label 2 of image 2 is out of",
        ),
    ],
)
def test_says_what_is_wrong_with_a_folder(folder, change, message):
    with pytest.raises(ValueError, match=message):
        open_images(folder, **change(folder))


def test_says_what_is_wrong_with_other_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_images(tmp_path / "none")
    with pytest.raises(TypeError, match="source is a list"):
        open_images([1])
    with pytest.raises(ValueError, match="does not tell its axes"):
        open_images(np.zeros((2, 3, 5, 3)))
    with pytest.raises(ValueError, match="has columns file, label; expected path"):
        (tmp_path / "t.csv").write_text("file,label\na,b\n")
        open_images(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"lists .a\.png. twice"):
        (tmp_path / "t.csv").write_text("path\na.png\na.png\n")
        open_images(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="has no array 'images'"):
        np.savez(tmp_path / "a.npz", pictures=np.zeros((1, 2, 2, 3)))
        open_images(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"labels has shape \(3,\); expected one for each of 2"):
        open_images(np.zeros((2, 4, 5, 3)), labels=[1, 2, 3])
