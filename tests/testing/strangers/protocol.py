"""Evaluation protocols: how long features are, and faulty ones."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from ssl_dc import Report, ReportTable


class Length(Report):
    def __init__(self, length, columns=("route", "length")):
        self.length = length
        self.columns = columns

    def as_json(self):
        return {"length": self.length}

    def tables(self):
        return [ReportTable("lengths", self.columns, [["dense", f"{self.length:.2f}"]])]

    def draw(self):
        return Figure()


def length_of(model):
    return model.dense(torch.ones(2, 3, 16, 16)).norm(dim=1).mean().item()


def Lengths(model, options):
    return Length(length_of(model))


def TensorInJson(model, options):
    return Length(torch.tensor(length_of(model)))


def RaggedTable(model, options):
    return Length(length_of(model), columns=("route", "length", "share"))


def NewNumbersEachTime(model, options):
    return Length(length_of(model) + torch.rand(1).item())


def LeavesTrainingMode(model, options):
    report = Length(length_of(model))
    model.encoder.train()
    return report


def CrashesWithoutGates(model, options):
    model.gated(torch.ones(2, 3, 16, 16))
    return Length(length_of(model))
