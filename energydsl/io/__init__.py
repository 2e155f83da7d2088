"""Files: what is read from and written to disk, one kind a file."""

from energydsl.io.folder import output_folder as output_folder
from energydsl.io.netcdf import to_netcdf as to_netcdf
