"""Files in the UAI format, for Markov and Bayesian networks of finite variables."""

from energydsl.io.uai.read import read_uai as read_uai
from energydsl.io.uai.read import uai_sites as uai_sites
from energydsl.io.uai.write import write_uai as write_uai
