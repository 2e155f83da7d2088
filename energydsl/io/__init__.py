"""Input and output: netCDF files, networks in the UAI format, and output folders."""

from energydsl.io.folder import output_folder
from energydsl.io.netcdf import to_netcdf
from energydsl.io.uai import read_uai, uai_sites, write_uai

__all__ = ["output_folder", "read_uai", "to_netcdf", "uai_sites", "write_uai"]
