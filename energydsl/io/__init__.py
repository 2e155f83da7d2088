"""Input and output: parameters, netCDF files, networks in the UAI format, BQMs, output folders."""

from energydsl.io.bqm import from_bqm, to_bqm
from energydsl.io.folder import output_folder
from energydsl.io.netcdf import to_netcdf
from energydsl.io.parameters import load, save
from energydsl.io.uai import read_uai, uai_sites, write_uai

__all__ = [
    "from_bqm",
    "load",
    "output_folder",
    "read_uai",
    "save",
    "to_bqm",
    "to_netcdf",
    "uai_sites",
    "write_uai",
]
