"""SGD with the paper's learning rate: 0.01 for a batch of 16."""

from detectron2 import model_zoo

optimizer = model_zoo.get_config("common/optim.py").SGD
optimizer.lr = 0.01
