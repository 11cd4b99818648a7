# The explorer on the demos in data/, read-only, as a hosted demo: docker build -t lfp-explorer . && docker run -p 8501:8501 lfp-explorer
# Other bundles: docker run -v /path/to/bundles:/bundles:ro -e LFP_BUNDLES=/bundles -p 8501:8501 lfp-explorer
# It runs without root and with a read-only file system; docs/HOSTING.md has the flags.
FROM python:3.11-slim
WORKDIR /explorer
COPY app/requirements-hashed.txt app/requirements-hashed.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r app/requirements-hashed.txt && pip check
COPY app app
COPY lfp lfp
COPY data data
RUN python -m compileall -q app lfp && useradd --system --uid 10001 --no-create-home explorer
USER 10001
ENV LFP_PUBLIC=1 HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8501
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health')"
CMD ["streamlit", "run", "app/main.py", "--server.port=8501", "--server.address=0.0.0.0", "--server.headless=true", \
     "--server.fileWatcherType=none"]
