"""StarCraft II behind the unit-set contract. The one package that imports pysc2:

    features = import_pysc2("pysc2.lib.features")

`envs.starcraft.protocol` says why a plain ``import`` would fail.
"""

from envs.starcraft.protocol import GeneratedCodeError, import_pysc2, install, protobuf_backend

__all__ = ["GeneratedCodeError", "import_pysc2", "install", "protobuf_backend"]
