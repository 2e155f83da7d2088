"""Where the chains of contrastive divergence begin, one file for each way."""

from energydsl.learning.start.base import AbstractStart as AbstractStart
from energydsl.learning.start.base import Walkers as Walkers
from energydsl.learning.start.buffer import Buffer as Buffer
from energydsl.learning.start.choose import start_of as start_of
from energydsl.learning.start.examples import AtExamples as AtExamples
from energydsl.learning.start.noisy import Noisy as Noisy
