"""The files of deployments/, read as docker would and carried out without it."""
