#!/usr/bin/env bash
# Makes the embedded weights: predictions of small segmentors and of a published one, region masks, two training runs.
#   examples/train_universal.sh DATA WORK DEEPLAB.onnx
# DATA holds ccp_fashion, dsb2018_nuclei, road_cracks and axon_sem; WORK takes predictions and the run.
set -euo pipefail
data=$1 work=$2 deeplab=$3
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1
mkdir -p "$work"

cat > "$work/groups.json" <<'JSON'
{"background": ["background"], "skin": ["skin"], "hair": ["hair", "hat"],
 "lower": ["jeans", "leggings", "pants", "shorts", "skirt", "stockings", "tights", "socks"],
 "dress": ["dress", "romper", "swimwear"],
 "shoes": ["boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes", "sneakers", "wedges"],
 "upper": ["blazer", "blouse", "bodysuit", "bra", "cape", "cardigan", "coat", "hoodie", "intimate", "jacket", "jumper",
           "shirt", "suit", "sweater", "sweatshirt", "t-shirt", "top", "vest", "scarf", "tie"],
 "carried": ["bag", "purse", "wallet"],
 "small": ["accessories", "belt", "bracelet", "earrings", "glasses", "gloves", "necklace", "panties", "ring",
           "sunglasses", "watch"]}
JSON

segmentor() { # data set, kind, minutes per fold, further options
  python "$here/out_of_fold.py" "$data/$1" "$work/predictions/$1/$2" --kind "$2" --minutes "$3" "${@:4}"
}
segmentor ccp_fashion unet 5 --groups "$work/groups.json"
segmentor ccp_fashion dilated 5 --groups "$work/groups.json"
segmentor ccp_fashion pyramid 4 --groups "$work/groups.json"
segmentor road_cracks unet 1.2
segmentor road_cracks dilated 1.2
segmentor dsb2018_nuclei unet 1
segmentor dsb2018_nuclei dilated 1
segmentor axon_sem unet 1.2
segmentor axon_sem pyramid 1.2
python "$here/foreground_predictions.py" "$deeplab" "$data/ccp_fashion" "$work/predictions/ccp_fashion/deeplab_voc"

python "$here/region_masks.py" "$data/ccp_fashion" "$work/ccp_regions"

# The first run of the weights that are shipped was made before there were rough label maps: 12 % of its synthetic
# mistakes were perfect label maps instead.
torchrun --nproc-per-node 2 -m ddps.cli.main train \
  --data "$data/ccp_fashion" --data "$data/dsb2018_nuclei" --data "$data/road_cracks" --data "$data/axon_sem" \
  --data-weight 4 --data-weight 1 --data-weight 1.5 --data-weight 1 --predictions "$work/predictions" \
  -o "$work/first" --name universal --steps 3400 --batch-size 5 --lr 1.5e-3 --validate-every 400 --validate-images 6 \
  --repair-share 0 --label-map-share 0.12 --own-share 0.25 --boundary-weight 1

torchrun --nproc-per-node 2 -m ddps.cli.main train \
  --data "$data/ccp_fashion" --data "$work/ccp_regions" --data "$data/dsb2018_nuclei" --data "$data/road_cracks" \
  --data "$data/axon_sem" --data-weight 4 --data-weight 2.5 --data-weight 1 --data-weight 1.5 --data-weight 1 \
  --predictions "$work/predictions" --init "$work/first/last" -o "$work/universal" --name universal --steps 3600 \
  --batch-size 5 --lr 1.2e-3 --warmup 100 --validate-every 600 --validate-images 4
