"""Two-stage detectors with the ground truth looked at before it is used."""

from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

from .inputs import check_ground_truth


@META_ARCH_REGISTRY.register()
class BalancedGeneralizedRCNN(GeneralizedRCNN):
    """Detectron2's `GeneralizedRCNN`, which refuses unusable ground truth.

    Its losses are those of its parts: `BalancedFastRCNNOutputLayers` in `roi_heads`, and where
    wanted `BalancedRPN`. Both work in a stock `GeneralizedRCNN` too.
    """

    def forward(self, batched_inputs: list[dict]):
        """As `GeneralizedRCNN.forward`.

        Raises:
            ValueError: in training, for a box without area or of a class that the model lacks.
        """
        if self.training:
            check_ground_truth(batched_inputs, self.roi_heads.num_classes)
        return super().forward(batched_inputs)
