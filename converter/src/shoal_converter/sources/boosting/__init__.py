"""Gradient boosting of XGBoost, LightGBM and CatBoost: read from their own dumps, written as ONNX tree ensembles."""
