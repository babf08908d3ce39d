"""What a graph demands of its inputs: for rows that are made up, and for whoever explains why a row is refused."""

from .demand import NOTHING, Content, Demand, Demands, Group
from .walk import LEFT_OUT, demands_of

__all__ = ["LEFT_OUT", "NOTHING", "Content", "Demand", "Demands", "Group", "demands_of"]
