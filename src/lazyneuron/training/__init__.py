"""Train and judge models: the loop, evaluation, quality and calibration."""
