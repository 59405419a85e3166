"""Two-stage detectors with the ground truth looked at before it is used."""

from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

from iou_balanced.modeling.ground_truth import check_ground_truth

from .fast_rcnn import BalancedFastRCNNOutputLayers


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
        if not self.training:
            return super().forward(batched_inputs)
        check_ground_truth(batched_inputs, self.roi_heads.num_classes)
        # The box heads get the proposals of an image, and not its objects.
        gt_classes = [x["instances"].gt_classes for x in batched_inputs]
        heads = [x for x in self.modules() if isinstance(x, BalancedFastRCNNOutputLayers)]
        for head in heads:
            head.gt_classes = gt_classes
        try:
            return super().forward(batched_inputs)
        finally:
            for head in heads:
                head.gt_classes = None
