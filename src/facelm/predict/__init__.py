"""Landmarks of photographs and videos; needs torch, numpy, OpenCV and safetensors alone."""

from facelm.predict.detect import Detector, DlibDetector, YuNetDetector
from facelm.predict.predictor import FaceLandmarks, Prediction, Predictor

__all__ = ["Detector", "DlibDetector", "FaceLandmarks", "Prediction", "Predictor", "YuNetDetector"]
