"""The classification loss that `balance` gives a detector."""

import copy
from typing import Any

from detectron2.config import LazyCall
from omegaconf import DictConfig
from torch import nn

from iou_balanced.losses import CorrelationLoss
from iou_balanced.losses.checks import check_non_negative
from iou_balanced.modeling.cls_members import check_member, member_call
from iou_balanced.modeling.loss_families import CLS_FAMILIES, CROSS_ENTROPY, Family, family_of

from .class_balance import locate_target

PAPER = "paper"


def make_call(loss: type[nn.Module], arguments: dict[str, Any]) -> DictConfig:
    """The LazyCall of a loss, which is made once, so that an impossible value is an error now."""
    loss(**arguments)
    return LazyCall(loss)(**arguments)


def cls_loss_call(
    node: DictConfig,
    *,
    own_family: Family,
    own_arguments: dict[str, Any],
    own_eta: float,
    eta: float | str | None,
    across_processes: bool,
    cls: str | None,
    correlation: float | None,
) -> DictConfig:
    """The LazyCall of the classification loss.

    Args:
        node: of the detector, or of the part of it that has the loss.
        own_family: of its losses.
        own_arguments: of either, where the config says nothing.
        own_eta: what "paper" stands for.
        eta: see `balance`.
        across_processes: see `balance`.
        cls: see `balance`.
        correlation: see `balance`.

    Raises:
        ValueError: the loss is not possible.
    """
    detector = getattr(locate_target(node), "__name__", "this model")
    check_member(cls, own_family, detector, correlation)
    old = node.get("cls_loss") or {}
    family = family_of(locate_target(old), CLS_FAMILIES)
    if old and family is None and cls is None:
        if eta is not None:
            raise ValueError(
                f"Expected argument `eta` to be None, because the config's cls_loss "
                f"{locate_target(old).__name__} is kept as it is unless `cls` names another, "
                f"but got {eta!r}"
            )
        return _with_correlation(old, correlation, across_processes)
    arguments = dict(own_arguments)
    arguments.update((k, node[f"focal_loss_{k}"]) for k in arguments if f"focal_loss_{k}" in node)
    if family is not None:
        arguments.update(old)
    family = family or own_family
    arguments = {k: arguments[k] for k in family.arguments if k in arguments}
    if cls is not None and (own_family is not CROSS_ENTROPY or cls == "seesaw"):
        if eta == PAPER:
            eta = own_eta if cls == "iou_balanced_focal" else None
        call = member_call(
            cls, eta=eta, focal_arguments=arguments, across_processes=across_processes
        )
        return _with_correlation(make_call(*call), correlation, across_processes)
    if eta == PAPER:
        eta = own_eta if cls is None else None
    if eta is not None:
        arguments = {"eta": eta, **arguments, "across_processes": across_processes}
    loss = family.plain if eta is None else family.balanced
    return _with_correlation(make_call(loss, arguments), correlation, across_processes)


def _with_correlation(
    call: DictConfig, correlation: float | None, across_processes: bool
) -> DictConfig:
    """The loss, inside of a correlation loss where there is a weight of one.

    One that is inside of it already gets the new weight.
    """
    if correlation is None:
        return call
    check_non_negative(correlation=correlation)
    if locate_target(call) is CorrelationLoss:
        call = copy.deepcopy(call)
        call.weight = correlation
        return call
    arguments = {"weight": correlation, "across_processes": across_processes}
    CorrelationLoss(**arguments)
    return LazyCall(CorrelationLoss)(loss=call, **arguments)
