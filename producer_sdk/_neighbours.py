"""Says which file is in the way when a folder of the agent's own hides `topology`.

Python looks into the agent's folder first, and an error deep inside would not tell why.
"""

from pathlib import Path

import topology

_found = Path(topology.__file__ or "").resolve()
_expected = Path(__file__).resolve().parents[1] / "topology" / "__init__.py"

if _found != _expected:
    raise ImportError(
        f"{_found} hides the optimizer's package 'topology'; rename it, or start Python in another folder"
    )
