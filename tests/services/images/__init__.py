"""Images for prototypes of tests, made of this machine's own programs: none can be pulled in CI.

What is the same for all tests is made once, in some seconds, and kept outside the checkout.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from testbed_runner.docker import image_file, python_image
from testbed_runner.docker.image_file import (
    ImageConfig,
    LayerEntries,
    LayerFile,
    LayerFolder,
    LayerLink,
)
from tests import services
from tests.services import built_products, mqtt_js

FORMAT = 1
"""Raised wherever what is written into the layers changes."""
PACKAGES = "/opt/packages"
NODE_MODULES = "/node_modules"
WORK = "/prototype"
NODE = "/usr/local/bin/node"
TOOLS = ("sh", "cat", "ls", "sleep", "env", "id")
SDK = ("broker", "testbed_sdk")
"""Packages of this checkout that a prototype in Python imports."""
SDK_NEEDS = ("httpx", "numpy", "orjson", "pydantic", "pydantic-settings", "rich", "structlog")
_CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True)
class BaseImage:
    """A layer in the cache that other images are built on, and how their containers begin."""

    layer: Path
    config: ImageConfig


def plain_python() -> BaseImage:
    """Python and its standard library alone, which is loaded in a second."""
    version = _key(sys.version, os.path.realpath(sys.executable))
    folder = built_products.cache() / f"image-plain-python-{version}"
    layer = _once(folder / "layer.tar", python_image.entries)
    return BaseImage(layer, python_image.config(_libraries(folder)))


def plain_python_program() -> LayerFile:
    """This machine's Python, marked to run as its owner: root."""
    return LayerFile(Path(sys.executable).resolve(), 0o4755)


def python_base() -> BaseImage:
    """Python with all that the SDK needs, but without the SDK itself: that is `sdk`."""
    version = _key(
        sys.version, os.path.realpath(sys.executable), *map(_pinned, _distributions(SDK_NEEDS))
    )
    folder = built_products.cache() / f"image-python-{version}"
    layer = _once(folder / "layer.tar", _python_entries)
    config = python_image.config(_libraries(folder))
    environment = {**config.environment, "PYTHONPATH": PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"}
    return BaseImage(layer, replace(config, environment=environment))


def node_base() -> BaseImage:
    """Node with mqtt.js; the test is skipped without them."""
    node = Path(services.found("node")).resolve()
    modules = mqtt_js.modules()
    version = _key(str(node), str(node.stat().st_mtime_ns), mqtt_js.VERSION)
    folder = built_products.cache() / f"image-node-{version}"
    layer = _once(folder / "layer.tar", lambda: _node_entries(node, modules))
    return BaseImage(
        layer,
        ImageConfig(
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_PATH": NODE_MODULES},
            command=(NODE,),
        ),
    )


def sdk() -> LayerEntries:
    """The SDK of this checkout, as it is now, for an image on `python_base`."""
    folders = {f"{PACKAGES}/{name}": _CHECKOUT / name for name in SDK}
    return dict(_files_below(folders))


def write(
    target: Path, base: BaseImage, content: Mapping[str, str | bytes] | LayerEntries, **config: str
) -> str:
    """Write the archive of an image for a test, and return its digest.

    content: path in the image, or below WORK -> text, bytes, or an entry.  config: fields of
    ImageConfig other than those of the base: user, folder.
    """
    entries = {str(Path(WORK, path)): _entry(each) for path, each in content.items()}
    above = target.with_suffix(".layer")
    try:
        with above.open("wb") as file:
            image_file.write_layer(file, entries | {WORK: LayerFolder()})
        with target.open("wb") as file:
            settings = replace(base.config, **{"folder": WORK, **config})
            return image_file.write_image(file, [base.layer, above], settings)
    finally:
        above.unlink(missing_ok=True)


def _entry(content: object) -> LayerFile | LayerLink | LayerFolder:
    match content:
        case str():
            return LayerFile(content.encode())
        case bytes():
            return LayerFile(content)
        case LayerFile() | LayerLink() | LayerFolder():
            return content
    raise TypeError(content)


def _python_entries() -> LayerEntries:
    packages: dict[str, LayerFile] = {}
    for distribution in _distributions(SDK_NEEDS):
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and "tests" not in file.parts and path.is_file():
                packages[f"{PACKAGES}/{file}"] = image_file.of_file(path)
    binaries = [each.content for name, each in packages.items() if ".so" in Path(name).name]
    libraries = python_image.program_libraries(filter(_is_path, binaries))
    return {
        **python_image.entries(),
        **packages,
        **_tools(),
        # those that a package brings are found beside it
        **{path: file for path, file in libraries.items() if "site-packages" not in path},
    }


def _node_entries(node: Path, modules: Path) -> LayerEntries:
    return {
        python_image.TMP: LayerFolder(python_image.TMP_MODE),
        NODE: LayerFile(node, image_file.PROGRAM),
        **dict(_files_below({NODE_MODULES: modules})),
        **_tools(),
        **python_image.program_libraries([node]),
    }


def _tools() -> LayerEntries:
    """A shell and a few commands, as images for people have them."""
    programs = [Path(path).resolve() for name in TOOLS if (path := shutil.which(name))]
    files = {
        f"/bin/{name}": image_file.of_file(Path(path).resolve())
        for name in TOOLS
        if (path := shutil.which(name))
    }
    users = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    return {
        **files,
        **python_image.program_libraries(programs),
        "/etc/passwd": LayerFile(users.encode()),
        "/etc/group": LayerFile(b"root:x:0:\nnogroup:x:65534:\n"),
    }


def _is_path(content: object) -> bool:
    return isinstance(content, Path)


def _files_below(folders: Mapping[str, Path]) -> Iterator[tuple[str, LayerFile]]:
    for target, folder in folders.items():
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{target}/{path.relative_to(folder)}", image_file.of_file(path)


def _once(layer: Path, entries: Callable[[], LayerEntries]) -> Path:
    """Make a layer unless it is in the cache; another process may be making it."""
    layer.parent.mkdir(parents=True, exist_ok=True)
    with (layer.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            _write_layer(layer, entries())
    return layer


def _write_layer(layer: Path, entries: LayerEntries) -> None:
    new = layer.with_suffix(".new")
    with new.open("wb") as file:
        image_file.write_layer(file, entries)
    libraries = [name for name in entries if ".so" in Path(name).name and PACKAGES not in name]
    (layer.parent / "libraries").write_text("\n".join(libraries))
    new.rename(layer)


def _libraries(folder: Path) -> list[str]:
    return (folder / "libraries").read_text().split("\n")


def _distributions(names: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """These distributions and all that they need, as this environment has them."""
    seen: dict[str, importlib.metadata.Distribution] = {}
    names = list(names)
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in seen:
            continue
        try:
            seen[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or version of Python
        needs = seen[name].requires or ()
        names += [re.split(r"[^\w.-]", need)[0] for need in needs if "extra ==" not in need]
    return [seen[name] for name in sorted(seen)]


def _pinned(distribution: importlib.metadata.Distribution) -> str:
    return f"{distribution.name}=={distribution.version}"


def _key(*parts: str) -> str:
    text = "\n".join((str(FORMAT), *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
