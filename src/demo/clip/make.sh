#!/bin/sh
# Renders video.mp4 and audio.mp4 with make.mjs. Needs node 18+ and ffmpeg 5.1+ (libx264).
# (delay_moov: the AAC header is only known with the first packet.)
# The results are committed; neither tool is needed to build or run sharelinkd.
#
# Video: 8 s, 426x240, 24 frames per second, H.264 Main, no B frames, a keyframe every second, a
#        fragment every 1/4 s.
# Audio: 16 s, mono, 48 kHz, AAC: 750 packets from the middle of three rounds, so that the codec's
#        overlap at the end leads into the beginning; a fragment every 25 packets.
set -eu
cd "$(dirname "$0")"
exact="-fflags +bitexact -map_metadata -1"
node make.mjs video |
ffmpeg -v error -y -f rawvideo -pix_fmt rgb24 -s 426x240 -r 24 -i - $exact -flags:v +bitexact -threads 1 \
  -pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709 -vf scale=out_color_matrix=bt709 \
  -c:v libx264 -profile:v main -preset veryslow -crf "${CRF:-28}" -bf 0 -refs 4 -g 24 -keyint_min 24 -sc_threshold 0 -aq-mode 3 -aq-strength 1.2 \
  -video_track_timescale 24000 -use_editlist 0 -movflags +empty_moov+default_base_moof+frag_keyframe -frag_duration 250000 video.mp4
sound=$(mktemp)
node make.mjs audio |
ffmpeg -v error -y -f s16le -ar 48000 -ac 1 -i - $exact -flags:a +bitexact -c:a aac -b:a "${RATE:-44k}" -cutoff 14000 -f adts "$sound"
node make.mjs loop 750 750 < "$sound" |
ffmpeg -v error -y -f aac -i - $exact -c:a copy -bsf:a aac_adtstoasc \
  -use_editlist 0 -movflags +empty_moov+delay_moov+default_base_moof -frag_duration 533000 audio.mp4
rm -f "$sound"
ls -l video.mp4 audio.mp4
