"""Search: candidates, attacks, branching, exact leaves and the branch-and-bound loop."""
