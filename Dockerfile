# An image for CPUs. Build it with: docker build -t ssl-dc-cpu .
# --build-arg TORCH_INDEX=URL takes torch from an index with CPU builds. Without it torch comes with its CUDA libraries.
FROM python:3.12-slim

# the C compiler makes the kernels, on the machine that they run on
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision

COPY . /src
RUN pip install --no-cache-dir "/src[heic,onnx,parquet,report]"

WORKDIR /data
ENTRYPOINT ["ssl-dc"]
CMD ["--help"]
