"""The images that tests deploy are loaded by Docker's own engine, and their programs run."""

from tests.services import images

PYTHON = """
import ssl, sqlite3
import numpy, testbed_sdk
print("python", numpy.arange(3).sum(), testbed_sdk.__name__)
"""
NODE = "console.log('node', typeof require('mqtt').connect)"


def test_a_prototype_in_python_has_the_sdk_and_all_that_it_needs(dockerd, tmp_path):
    digest = images.write(
        tmp_path / "python.tar",
        images.python_base(),
        {"main.py": PYTHON} | images.sdk(),
    )
    dockerd.command("load", "--input", str(tmp_path / "python.tar"))
    printed = dockerd.command("run", "--rm", "--network=none", digest, "python", "main.py")
    assert printed == "python 3 testbed_sdk"


def test_a_prototype_in_javascript_has_an_mqtt_client(dockerd, tmp_path):
    digest = images.write(tmp_path / "node.tar", images.node_base(), {"main.js": NODE})
    dockerd.command("load", "--input", str(tmp_path / "node.tar"))
    printed = dockerd.command("run", "--rm", "--network=none", digest, "node", "main.js")
    assert printed == "node function"
