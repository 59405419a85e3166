import pytest
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from omegaconf import DictConfig, OmegaConf

from iou_balanced.modeling import (
    BalancedFastRCNNOutputLayers,
    BalancedGeneralizedRCNN,
    BalancedRPN,
    balance,
)
from iou_balanced.modeling.conversion.rcnn import box_predictor_nodes, rpn_node

from ..detector_mixin import small_retinanet
from ..rcnn.rcnn_models import small_cascade_mask_rcnn, small_faster_rcnn

ONE = ["roi_heads.box_predictor"]
STAGES = [f"roi_heads.box_predictors[{i}]" for i in range(3)]
ZOO = {
    "mask_rcnn_fpn": ONE,
    "mask_rcnn_c4": ONE,
    "keypoint_rcnn_fpn": ONE,
    "panoptic_fpn": ONE,
    "cascade_rcnn": STAGES,
}


@pytest.mark.parametrize(("file", "paths"), ZOO.items(), ids=ZOO)
def test_the_model_zoos_configs(file, paths):
    model = model_zoo.get_config(f"common/models/{file}.py").model
    nodes = box_predictor_nodes(model)
    assert [path for path, _ in nodes] == paths
    for path, node in nodes:
        assert node is OmegaConf.select(model, path)
        assert node._target_ is FastRCNNOutputLayers
    assert rpn_node(model) is model.proposal_generator


@pytest.mark.parametrize("config", [small_faster_rcnn, small_cascade_mask_rcnn])
def test_configs_of_ours_also_when_read_back_from_yaml(config, tmp_path):
    model = balance(config(), rpn=True)
    assert model._target_ is BalancedGeneralizedRCNN
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(DictConfig({"model": model}, flags={"allow_objects": True}), path)
    for m in (model, LazyConfig.load(path).model):
        assert len(box_predictor_nodes(m)) == (1 if config is small_faster_rcnn else 3)
        assert rpn_node(m) is m.proposal_generator


def test_a_subclass_of_ours_is_ours():
    class Mine(BalancedFastRCNNOutputLayers):
        pass

    class MyRPN(BalancedRPN):
        pass

    class MyRCNN(GeneralizedRCNN):
        pass

    model = small_faster_rcnn()
    model._target_ = MyRCNN
    model.roi_heads.box_predictor._target_ = Mine
    model.proposal_generator._target_ = MyRPN
    assert len(box_predictor_nodes(model)) == 1 and rpn_node(model)._target_ is MyRPN


class TestRefusals:
    @pytest.mark.parametrize(
        "model", [small_retinanet(), LazyCall(ProposalNetwork)(), {"_target_": GeneralizedRCNN}]
    )
    def test_no_rcnn(self, model):
        for find in (box_predictor_nodes, rpn_node):
            with pytest.raises(ValueError, match=r"LazyCall of detectron2's GeneralizedRCNN"):
                find(model)

    @pytest.mark.parametrize("key", ["box_predictor", None])
    def test_no_box_head(self, key):
        model = small_faster_rcnn()
        if key:
            del model.roi_heads[key]
        else:
            del model["roi_heads"]
        with pytest.raises(ValueError, match=r"with a box head, roi_heads\.box_predictor or"):
            box_predictor_nodes(model)

    def test_layers_and_proposals_of_another_class(self):
        class Mine(FastRCNNOutputLayers):
            pass

        class MyRPN(RPN):
            pass

        model = small_cascade_mask_rcnn()
        model.roi_heads.box_predictors[1]._target_ = Mine
        with pytest.raises(ValueError, match=r"box_predictors\[1\] to be a LazyCall.*Mine"):
            box_predictor_nodes(model)
        model.proposal_generator._target_ = MyRPN
        with pytest.raises(ValueError, match=r"proposal_generator to be a LazyCall.*MyRPN"):
            rpn_node(model)
        model.proposal_generator = None
        with pytest.raises(ValueError, match=r"proposal_generator to be a LazyCall.*NoneType"):
            rpn_node(model)

    def test_rotated_boxes(self):
        model, five = small_faster_rcnn(), (1.0,) * 5
        transform = LazyCall(Box2BoxTransformRotated)(weights=five)
        model.roi_heads.box_predictor.box2box_transform = transform
        model.proposal_generator.box2box_transform = transform
        for find in (box_predictor_nodes, rpn_node):
            with pytest.raises(ValueError, match=r"axis-aligned boxes.*Box2BoxTransformRotated"):
                find(model)

    @pytest.mark.parametrize("key", ["use_sigmoid_ce", "use_fed_loss"])
    def test_a_sigmoid_classifier(self, key):
        model = small_faster_rcnn()
        model.roi_heads.box_predictor[key] = False
        assert box_predictor_nodes(model)
        model.roi_heads.box_predictor[key] = True
        with pytest.raises(ValueError, match=rf"box_predictor to classify by softmax.*{key}=True"):
            box_predictor_nodes(model)
