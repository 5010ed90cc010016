"""pysc2 imports under today's protobuf and Python, on its fast backend, and nothing is left patched."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from envs.starcraft import import_pysc2, install, protobuf_backend

ROOT = Path(__file__).parents[2]
FILES = ("common", "data", "debug", "error", "query", "raw", "sc2api", "score", "spatial", "ui")


def run_python(code: str, *, path: Path | None = None, **environment: str) -> Any:
    """The JSON that ``code`` prints, in a fresh interpreter that looks for packages in ``path`` first."""
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT)))),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # one: nothing greets us on standard output
    return json.loads(line)


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """The modules of s2clientprotocol by the names of their ``.proto`` files."""
    install()
    return {name: sys.modules[f"s2clientprotocol.{name}_pb2"] for name in FILES}


def count(descriptors: Iterable[Any]) -> int:
    """Messages and enums, nested ones included."""
    return sum(1 + len(d.enum_types) + count(d.nested_types) for d in descriptors)


def test_pysc2_imports_in_a_fresh_interpreter_and_nothing_stays_patched() -> None:
    assert run_python("""
import contextlib, json, os, random, sys
with contextlib.suppress(TypeError):  # having tried without is no obstacle
    import pysc2.lib.features
import absl.flags  # puts a finder of its own in place
before = random.shuffle, list(sys.meta_path), dict(os.environ)
from envs.starcraft import import_pysc2, protobuf_backend
import_pysc2()
from pysc2.lib import features
sc2_env = import_pysc2("pysc2.env.sc2_env")
from pysc2 import run_configs
from absl import flags
print(json.dumps({
    "modules": [features.__name__, sc2_env.__name__, run_configs.__name__],
    "unpatched": (random.shuffle, list(sys.meta_path), dict(os.environ)) == before,
    "backend": protobuf_backend(),
    "flags": flags.FLAGS.is_parsed(),
}))
""") == {
        "modules": ["pysc2.lib.features", "pysc2.env.sc2_env", "pysc2.run_configs"],
        "unpatched": True,
        "backend": "upb",
        "flags": True,
    }


def test_a_failed_import_leaves_nothing_patched() -> None:
    before = random.shuffle, list(sys.meta_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_pysc2("pysc2.no_such_module")
    assert (random.shuffle, sys.meta_path) == before


def test_only_pysc2_is_imported() -> None:
    with pytest.raises(ValueError, match=r"'numpy\.random' is not a module of pysc2"):
        import_pysc2("numpy.random")


def test_importing_twice_gives_the_same_module() -> None:
    assert import_pysc2("pysc2.lib.features") is import_pysc2("pysc2.lib.features")


def test_palette_is_the_one_python_3_10_drew() -> None:
    """``random.shuffle(palette, lambda: 0.5)`` there, worked out by hand for five colours."""
    colors = import_pysc2("pysc2.lib.colors")
    # Swap i = 4, 3, 2, 1 with int((i + 1) / 2) = 2, 2, 1, 1: 01234, 01432, 01342, 03142, 03142.
    expected = colors.smooth_hue_palette(5)[[0, 3, 1, 4, 2]]
    module = sys.modules["envs.starcraft.protocol"]
    with module._shuffle_of_python_3_10():
        assert colors.shuffled_hue(5).tolist() == expected.tolist()


def test_every_message_and_enum_is_there(messages: dict[str, Any]) -> None:
    files = [module.DESCRIPTOR for module in messages.values()]
    assert sum(count(f.message_types_by_name.values()) + len(f.enum_types_by_name) for f in files) == 177
    for module in messages.values():
        for name, descriptor in module.DESCRIPTOR.message_types_by_name.items():
            assert getattr(module, name).DESCRIPTOR is descriptor
        for name, enum in module.DESCRIPTOR.enum_types_by_name.items():
            assert getattr(module, name).items() == [(v.name, v.number) for v in enum.values]


# Field numbers from s2client-proto's common.proto, raw.proto and sc2api.proto.
@pytest.mark.parametrize(
    ("file", "message", "fields"),
    [
        ("common", "Point", {"x": 1, "y": 2, "z": 3}),
        ("sc2api", "RequestStep", {"count": 1}),
        (
            "sc2api",
            "ResponseObservation",
            {"actions": 1, "action_errors": 2, "observation": 3, "player_result": 4, "chat": 5},
        ),
        (
            "raw",
            "UnitOrder",
            {"ability_id": 1, "target_world_space_pos": 2, "target_unit_tag": 3, "progress": 4},
        ),
        (
            "raw",
            "ActionRawUnitCommand",
            {
                "ability_id": 1,
                "target_world_space_pos": 2,
                "target_unit_tag": 3,
                "unit_tags": 4,
                "queue_command": 5,
            },
        ),
    ],
)
def test_fields(messages: dict[str, Any], file: str, message: str, fields: dict[str, int]) -> None:
    descriptor = getattr(messages[file], message).DESCRIPTOR
    assert {field.name: field.number for field in descriptor.fields} == fields


def test_fields_of_units_and_enums(messages: dict[str, Any]) -> None:
    fields = {field.name: field.number for field in messages["raw"].Unit.DESCRIPTOR.fields}
    assert len(fields) == 44
    some = {
        "tag": 3,
        "unit_type": 4,
        "pos": 6,
        "health": 14,
        "shield": 16,
        "weapon_cooldown": 30,
        "orders": 22,
    }
    assert fields.items() >= some.items()
    assert dict(messages["raw"].Alliance.items()) == {"Self": 1, "Ally": 2, "Neutral": 3, "Enemy": 4}
    assert messages["sc2api"].Status.Name(3) == "in_game"
    assert messages["sc2api"].Victory == 1  # an enum's values are also the module's


def test_observation_of_200_units_survives_the_wire(messages: dict[str, Any]) -> None:
    raw, sc2api = messages["raw"], messages["sc2api"]
    response = sc2api.Response(id=7, status=sc2api.in_game)
    observation = response.observation.observation
    observation.game_loop = 224
    observation.raw_data.player.power_sources.add(radius=6.5, tag=1).pos.x = 3.25
    for tag in range(200):
        unit = observation.raw_data.units.add(
            tag=2**40 + tag,
            unit_type=48,
            alliance=raw.Self if tag % 2 else raw.Enemy,
            health=45 - tag % 45,
            health_max=45,
            weapon_cooldown=0.5 * tag,
        )
        unit.pos.x, unit.pos.y = tag / 8, 32 - tag / 8
        unit.orders.add(ability_id=23, target_unit_tag=2**40 + (tag + 1) % 200)
    parsed = sc2api.Response.FromString(response.SerializeToString())
    assert parsed == response
    units = parsed.observation.observation.raw_data.units
    assert len(units) == 200
    assert (units[199].tag, units[199].pos.x, units[199].orders[0].target_unit_tag) == (
        2**40 + 199,
        24.875,
        2**40,
    )


def test_mock_environment_resets_and_steps() -> None:
    mock_sc2_env = import_pysc2("pysc2.env.mock_sc2_env")
    features, actions = import_pysc2("pysc2.lib.features"), import_pysc2("pysc2.lib.actions")
    interface = features.AgentInterfaceFormat(
        feature_dimensions=features.Dimensions(screen=32, minimap=32), use_raw_units=True
    )
    environment = mock_sc2_env.SC2TestEnv(map_name="Flat64", agent_interface_format=interface)
    (first,) = environment.reset()
    assert first.first()
    assert first.observation.feature_screen.shape == (27, 32, 32)
    (second,) = environment.step([actions.FUNCTIONS.no_op()])
    assert second.mid()
    environment.close()


# A file of generated code per generation of protoc. The old ones stop whoever runs them.
PROTOC_3_0 = """
raise RuntimeError("this file is to be read, not run")
import sys
_b=sys.version_info[0]<3 and (lambda x:x) or (lambda x:x.encode('latin1'))
from google.protobuf import descriptor as _descriptor
DESCRIPTOR = _descriptor.FileDescriptor(
  name='s2clientprotocol/NAME.proto',
  package='SC2APIProtocol',
  syntax='proto2',
  serialized_pb=_b(LATIN1)
  )
"""
PROTOC_3_8 = PROTOC_3_0.replace("_b(LATIN1)", "SERIALIZED")
PROTOC_6 = """
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf.internal import builder as _builder
DEPENDENCIES
AS_WRITTEN = True
DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(SERIALIZED)
_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 's2clientprotocol.NAME_pb2', globals())
"""
NO_LITERAL = PROTOC_3_0.replace("_b(LATIN1)", "read_from_somewhere()")


def write_package(folder: Path, messages: dict[str, Any], templates: dict[str, str]) -> None:
    """A package s2clientprotocol in ``folder``; files not in ``templates`` are of a new protoc."""
    package = folder / "s2clientprotocol"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, module in messages.items():
        serialized = module.DESCRIPTOR.serialized_pb
        needs = [Path(dependency.name).stem for dependency in module.DESCRIPTOR.dependencies]
        source = (
            templates.get(name, PROTOC_6)
            .replace("NAME", name)
            .replace("DEPENDENCIES", "\n".join(f"import s2clientprotocol.{n}_pb2" for n in needs))
            .replace("LATIN1", repr(serialized.decode("latin1")))
            .replace("SERIALIZED", repr(serialized))
        )
        (package / f"{name}_pb2.py").write_text(source, encoding="utf-8")


RUN_AS_WRITTEN = """
import json, sys
from envs.starcraft import import_pysc2
import_pysc2("pysc2.env.sc2_env")
files = {name.split(".")[1]: module for name, module in sys.modules.items() if name.endswith("_pb2")
         and name.startswith("s2clientprotocol.")}
unit = files["raw_pb2"].Unit(tag=5)
assert files["raw_pb2"].Unit.FromString(unit.SerializeToString()) == unit
print(json.dumps(sorted(name for name, module in files.items() if hasattr(module, "AS_WRITTEN"))))
"""


def test_newer_generated_code_is_left_alone(tmp_path: Path, messages: dict[str, Any]) -> None:
    write_package(tmp_path, messages, {})
    assert run_python(RUN_AS_WRITTEN, path=tmp_path) == [f"{name}_pb2" for name in FILES]


def test_old_and_new_files_in_one_folder(tmp_path: Path, messages: dict[str, Any]) -> None:
    """Two distributions own the folder; a partial reinstall leaves files of both."""
    write_package(tmp_path, messages, {"common": PROTOC_3_0, "raw": PROTOC_3_8, "sc2api": PROTOC_3_0})
    new = [f"{name}_pb2" for name in FILES if name not in ("common", "raw", "sc2api")]
    assert run_python(RUN_AS_WRITTEN, path=tmp_path) == new


def test_code_that_cannot_be_read_is_refused_with_the_way_out(
    tmp_path: Path, messages: dict[str, Any]
) -> None:
    write_package(tmp_path, messages, {"common": NO_LITERAL})
    message = run_python(
        """
import json, random, sys
from envs.starcraft import GeneratedCodeError, import_pysc2
before = random.shuffle, list(sys.meta_path)
try:
    import_pysc2()
except GeneratedCodeError as error:
    assert before == (random.shuffle, sys.meta_path)
    print(json.dumps(str(error)))
""",
        path=tmp_path,
    )
    assert "common_pb2.py" in message
    assert "reinstall s2clientprotocol" in message


def test_backend_is_named(messages: dict[str, Any]) -> None:
    assert protobuf_backend() == "upb"
    code = "import json; from envs.starcraft import *; install(); print(json.dumps(protobuf_backend()))"
    assert run_python(code, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python") == "python"
