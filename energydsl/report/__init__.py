"""Reports about chains and models: diagnostics, ArviZ trees and pictures."""
