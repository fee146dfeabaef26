"""facelm: HRNetV2 facial landmarks on 300W with Lightning and Hydra.

Importing the package imports nothing heavy; import what you need from its modules.
"""

__version__ = "0.1.0"
