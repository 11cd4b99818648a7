"""The benchmarks of the offline jobs: training an autoencoder, and making the statistics of features."""
