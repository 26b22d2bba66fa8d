"""What trainer and launcher share: settings, the files of a run, exit codes. No TensorFlow, no Kubernetes, no store."""
