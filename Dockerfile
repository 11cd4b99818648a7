# The explorer on the demos in data/, read-only, as a hosted demo: docker build -t lfp-explorer . && docker run -p 8501:8501 lfp-explorer
# Other bundles: docker run -v /path/to/bundles:/bundles -e LFP_BUNDLES=/bundles -p 8501:8501 lfp-explorer
FROM python:3.11-slim
WORKDIR /explorer
COPY app/requirements.txt app/requirements.txt
RUN pip install --no-cache-dir -r app/requirements.txt
COPY app app
COPY lfp lfp
COPY data data
ENV LFP_PUBLIC=1
EXPOSE 8501
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health')"
CMD ["streamlit", "run", "app/main.py", "--server.port=8501", "--server.address=0.0.0.0", "--server.headless=true"]
