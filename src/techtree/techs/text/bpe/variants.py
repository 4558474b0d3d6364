MISTAKES={}
EQUIVALENTS={}
def probes(rng): return {}
