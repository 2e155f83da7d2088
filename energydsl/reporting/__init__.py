"""Reports about chains and models: diagnostics, ArviZ trees and pictures."""

from energydsl.language.model import draw_graphs_by
from energydsl.reporting.factor_graph import draw_factor_graph

draw_graphs_by(draw_factor_graph)
