"""Balance-oriented focal loss with the settings of its paper, for `balance(class_balance=...)`."""

from detectron2.config import LazyCall as L

from iou_balanced.losses import BalanceOriented, LinearSchedule

# Section 5.6: eta 0.999 over the images of a GPU (4 in the paper), 3 of 12 epochs deferred.
fcos_bofl = L(BalanceOriented)(
    eta=0.999,
    intensity=1.0,
    count_over="process",
    counted="instances",
    schedule=L(LinearSchedule)(total_epochs=12, deferred_epochs=3, update="epoch"),
)

# Section 5.2 and Table 4: eta 0.8 over an image, 5 of 140 epochs deferred.
centernet_bofl = L(BalanceOriented)(
    eta=0.8,
    intensity=1.0,
    count_over="image",
    counted="instances",
    schedule=L(LinearSchedule)(total_epochs=140, deferred_epochs=5, update="epoch"),
)
