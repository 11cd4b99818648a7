"""The only torch: models, autoencoders, statistics of features, implicit reward, interventions."""
