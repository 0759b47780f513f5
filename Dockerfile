# A recommender behind HTTP: docs/how_to/containers.md says how it is built and run.
FROM python:3.11-slim

# The index of torch's builds for processors alone. Without it pip takes the usual build, which brings CUDA's libraries.
ARG TORCH_INDEX=""

RUN useradd --create-home --uid 1000 etegrec
WORKDIR /app
COPY pyproject.toml setup.cfg MANIFEST.in constraints.txt README.md LICENSE ./
COPY etegrec_hf ./etegrec_hf
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch; \
    fi \
    && pip install --no-cache-dir -c constraints.txt ".[serve]"

USER etegrec
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["etegrec", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
