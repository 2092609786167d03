"""An archive of an image is taken if it is whole and one image; everything else is a sentence."""

import gzip
import io
import json
import tarfile

import pytest

from broker.errors import Invalid
from testbed_api.images import image_archive
from tests.services import image_archives as archives
from tests.services.image_archives import LAYERS, entry

UNPACKED = 1_000_000
DIGEST = archives.digest(archives.config())


def checked(archive: bytes, unpacked: int = UNPACKED) -> image_archive.CheckedImage:
    return image_archive.check(io.BytesIO(archive), unpacked)


@pytest.mark.parametrize(
    "archive",
    [
        archives.docker(),
        archives.oci(),
        archives.oci(compress=False),
        archives.docker(
            manifest=[
                {
                    "Config": f"{DIGEST.removeprefix('sha256:')}.json",
                    "Layers": ["first/layer.tar", "second/layer.tar"],
                }
            ],
            more=[
                entry("first", tarfile.DIRTYPE),
                entry(
                    "first/layer.tar",
                    tarfile.SYMTYPE,
                    f"../{archives.digest(LAYERS[0]).removeprefix('sha256:')}/layer.tar",
                ),
                entry(
                    "second/layer.tar",
                    tarfile.LNKTYPE,
                    f"{archives.digest(LAYERS[1]).removeprefix('sha256:')}/layer.tar",
                ),
            ],
        ),
    ],
    ids=["docker save", "OCI", "OCI without compression", "layers that are links"],
)
def test_an_image_has_the_digest_of_its_configuration_in_every_layout(archive):
    image = checked(archive)
    assert (image.digest, image.architecture) == (DIGEST, "amd64")
    assert image.unpacked_bytes == sum(map(len, LAYERS))


def one_layer(*more: tarfile.TarInfo) -> bytes:
    return archives.docker([archives.tar({"bin/watch": b"x"}, *more)])


def test_what_base_images_bring_is_taken():
    checked(
        one_layer(
            entry("dev/null", tarfile.CHRTYPE, device=(1, 3)),
            entry("etc/localtime", tarfile.SYMTYPE, "/usr/share/zoneinfo/UTC"),
            entry("run/initctl", tarfile.FIFOTYPE),
            entry("bin/sh", tarfile.LNKTYPE, "bin/watch"),
        )
    )


def sparse(name: str) -> bytes:
    """A layer whose file of a TiB is a hole."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    info = tarfile.TarInfo(name)
    info.pax_headers = headers
    content = b"0\n".ljust(512, b"\0")
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(1024)


DOCUMENT = {"Config": "c.json", "Layers": []}


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (b"", "no whole tar archive"),
        (b"not a tar" * 200, "no whole tar archive"),
        (gzip.compress(archives.docker()), "compressed as a whole"),
        (archives.docker()[:-9_000], "no whole tar archive"),
        (archives.docker()[:1_024], "no whole tar archive"),
        (archives.tar({"x": b"1"}), "neither manifest.json nor index.json"),
        (archives.docker(more=[entry("../x", tarfile.REGTYPE)]), "leads out"),
        (archives.docker(more=[entry("/x", tarfile.REGTYPE)]), "leads out"),
        (archives.docker(more=[entry("x", tarfile.SYMTYPE, "/etc/passwd")]), "leads out"),
        (archives.docker(more=[entry("a/x", tarfile.SYMTYPE, "../../x")]), "leads out"),
        (archives.docker(more=[entry("x", tarfile.LNKTYPE, "../x")]), "leads out"),
        (archives.docker(more=[entry("x", tarfile.CHRTYPE)]), "device or a pipe"),
        (archives.docker(more=[entry("manifest.json", tarfile.REGTYPE)]), "stands twice"),
        (archives.docker(manifest=[]), "lists no image"),
        (archives.docker(manifest={}), "lists no image"),
        (archives.docker(manifest=[1]), "has no 'Config'"),
        (archives.docker(manifest=[DOCUMENT, DOCUMENT]), "holds 2 images"),
        (archives.docker(manifest=[DOCUMENT]), "lacks 'c.json'"),
        (archives.docker(manifest=[{"Config": "../c", "Layers": []}]), "leads out"),
        (archives.docker(manifest=[{"Config": "c.json", "Layers": "x"}]), "lists no layers"),
        (archives.docker(content=b"{"), "is no JSON"),
        (archives.docker(content=b"[]"), "has no 'os'"),
        (archives.docker(content=archives.config(os="windows")), "it is for windows"),
        (archives.docker(content=archives.config(architecture="x/y")), "'x/y' is none"),
        (archives.docker(content=archives.config(rootfs={})), "lists no layers"),
        (archives.docker(content=archives.config(LAYERS[:1])), "2 layers, and its configuration 1"),
        (archives.docker(content=archives.config(LAYERS[::-1])), "and should be sha256:"),
        (archives.docker(without=f"{DIGEST[7:]}.json"), "it lacks"),
        (archives.docker(without=f"{archives.digest(LAYERS[1])[7:]}/layer.tar"), "it lacks"),
        (archives.oci(images=2), "lists 2 images"),
        (archives.oci(images=0), "lists 0 images"),
        (archives.oci(changed="layer"), "and should be sha256:"),
        (archives.oci(changed="manifest"), "and should be sha256:"),
        (archives.tar({"index.json": b'{"manifests": [{}]}'}), "no SHA-256 digest"),
        (archives.tar({"index.json": b'{"manifests": 1}'}), "lists no image"),
        (archives.docker([b"\x28\xb5\x2f\xfd" + bytes(600)]), "zstd"),
        (archives.docker([b"\x1f\x8b" + bytes(600)]), "compressed, and its bytes are malformed"),
        (archives.docker([gzip.compress(LAYERS[0])[:-20]]), "malformed"),
        (archives.docker([b"no tar" * 200]), "no whole tar archive"),
        (one_layer(entry("../x", tarfile.REGTYPE)), "leads out"),
        (one_layer(entry("/etc/x", tarfile.REGTYPE)), "leads out"),
        (one_layer(entry("x", tarfile.LNKTYPE, "../../etc/passwd")), "leads out"),
        (one_layer(entry("dev/sda", tarfile.BLKTYPE, device=(8, 0))), "device 'dev/sda'"),
        (one_layer(entry("dev/mem", tarfile.CHRTYPE, device=(1, 1))), "device 'dev/mem'"),
        (archives.docker([sparse("hole")]), "a size that none can have"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(archive, sentence):
    with pytest.raises(Invalid, match=sentence) as raised:
        checked(archive)
    assert len(raised.value.message) < 400


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = gzip.compress(archives.tar({"zeros": bytes(20_000_000)}))
    with pytest.raises(Invalid, match="more than 1,000,000 bytes when unpacked"):
        checked(archives.docker([bomb], content=archives.config([bomb])))
    name = archives.digest(LAYERS[1])[7:] + "/layer.tar"
    again = {"Config": f"{archives.digest(archives.config([LAYERS[1]] * 150))[7:]}.json"}
    manifest = [again | {"Layers": [name] * 150}]
    archive = archives.docker(LAYERS, content=archives.config([LAYERS[1]] * 150), manifest=manifest)
    with pytest.raises(Invalid, match="more than 1,000,000 bytes when unpacked"):
        checked(archive)
    with pytest.raises(Invalid, match="more than 200 layers"):
        checked(archives.docker(manifest=[again | {"Layers": [name] * 201}]))


def test_a_layer_with_a_header_of_megabytes_is_refused():
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 900_000_000
    with pytest.raises(Invalid, match="header has more than"):
        checked(archives.docker([info.tobuf() + bytes(1024)]))


def test_a_name_that_is_no_text_is_told_as_one():
    archive = archives.tar({"manifest.json": json.dumps([{"Config": "c", "Layers": []}]).encode()})
    archive = archive.replace(b"manifest.json", b"m\xffnifest.json", 1)
    with pytest.raises(Invalid):
        checked(archive)
