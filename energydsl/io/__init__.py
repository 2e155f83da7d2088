"""Input and output: netCDF files and output folders."""

from energydsl.io.folder import output_folder as output_folder
from energydsl.io.netcdf import to_netcdf as to_netcdf
