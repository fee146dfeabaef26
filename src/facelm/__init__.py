"""facelm: HRNetV2 facial landmarks on 300W with Lightning and Hydra.

Importing the package imports nothing heavy; import what you need from its modules.
"""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait, which takes the processor from every other process. Read when torch is loaded,
# so it is set before; who has set it, or has torch loaded already, keeps what they have.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# albumentations asks the network for a newer release when it is imported, and waits two seconds for the answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
