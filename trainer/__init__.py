"""Learning: runs in the container, under one process or under MultiWorkerMirroredStrategy."""

from trainer.gpu_libraries import open_those_left_out

open_those_left_out()  # before any module of ours imports TensorFlow
