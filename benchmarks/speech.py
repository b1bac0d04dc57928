"""Whisper's sizes, ours and transformers', trained and writing in turn; and our log-mel against torchaudio's.

    uv run python benchmarks/speech.py [--device cuda] [--rounds 5] [--batch 8] [--tiny] [--only mel train transcribe]

Whisper tiny, random weights, the same in both, float32, fused AdamW. Theirs gets recordings as its processor makes
them, filled with silence to 30 seconds; ours as long as they are. Both begin at the spectrograms, which data workers
make, train on 4 tokens for each second of sound, and write as many, greedily, behind Whisper's four start tokens;
nothing ends before its last token. The fill f is the share of sound in theirs. Rounds go A B A B; the figures are
medians over the rounds.

Seen to first: with our recordings filled to 30 seconds too, both have the same loss and write the same tokens; and the
spectrograms are the same. torchaudio's are `MelSpectrogram` with Whisper's settings and the logarithm, without what
Whisper does next: clips of one length in one call; ragged ones each alone, and also padded to the longest, which
disturbs the edges and the level of the shorter.
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
import torchaudio
from transformers import GenerationConfig as TheirGeneration
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.utils import logging

from anyformer.generation.config import GenerationConfig
from anyformer.optim.optimizer import make_optimizer
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.sequence.batch import Pair
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.sequence.target import written
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.mel import MelConfig, log_mel
from anyformer.tokenizers.text.text import Text
from anyformer.weights.huggingface import Settings
from anyformer.weights.whisper import WHISPER

logging.set_verbosity_error()
RATE, WHOLE, SPOKEN = 16_000, 30, 4
"""Samples of a second, seconds of Whisper's window, tokens of a second."""
TINY = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 500}
TINY |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
LETTERS = "abcdefgh"


def opening(vocab_size):
    """Ids that stand for the start of a transcript, a language, the task and no time stamps: the last, because theirs
    takes all that follow for time stamps, by which it reads a recording again."""
    return list(range(vocab_size - 4, vocab_size))


def draw_clips(seconds):
    random = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(round(each * RATE), generator=random) for each in seconds]


def measure(sides, rounds, device, n_calls=1):
    """The median time of a call of each side, in seconds."""
    times = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            for _ in range(n_calls):
                run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append((time.perf_counter() - start) / n_calls)
    return {name: statistics.median(each) for name, each in times.items()}


# The two models


def make_models(tiny, device):
    end = Text("characters", vocabulary=LETTERS).eos_id
    named = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), end)
    config = WhisperConfig(**(TINY if tiny else {}), **named)
    theirs = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            # With usual initial weights a token is followed by itself for ever.
            if parameter.ndim > 1 and "embed" not in name:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    settings = Settings(config.to_dict(), "WhisperConfig")
    design = WHISPER.design(settings, "WhisperForConditionalGeneration")
    ours = SequenceToSequence(
        {
            "audio": Audio(MelConfig(n_mels=design.n_mels), stem=AudioStem()),
            "text": Text("characters", vocabulary=LETTERS, least_ids=design.vocab_size, max_len=design.max_len),
        },
        design.transformer,
        design.embedding,
        encoder=design.encoder,
        output=design.output,
    )
    ours.build()
    WHISPER.load(ours, "text", theirs.state_dict(), settings, "WhisperForConditionalGeneration")
    start, language, transcribe, plain = opening(design.vocab_size)
    theirs.generation_config = TheirGeneration(
        decoder_start_token_id=start,
        pad_token_id=end,
        is_multilingual=True,
        lang_to_id={"<|en|>": language},
        task_to_id={"transcribe": transcribe},
        no_timestamps_token_id=plain,
        max_length=design.max_len,
        return_timestamps=False,
    )
    return theirs.to(device), ours.to(device)


def prepare(ours, clips, device, filled=False):
    """A batch of each: theirs filled with silence, ours as long as the clips are, or `filled` too."""
    audio = ours.tokenizers["audio"]
    extractor = WhisperFeatureExtractor(audio.mel.n_mels)
    features = extractor([clip.numpy() for clip in clips], sampling_rate=RATE, return_tensors="pt").input_features
    if filled:
        audio = replace(audio, pad_to_seconds=WHOLE)
    random = np.random.default_rng(0)
    n_tokens = [round(SPOKEN * len(clip) / RATE) for clip in clips]
    ids = [random.integers(len(LETTERS) + 8, ours.text.n_ids, n) for n in n_tokens]
    pairs = [Pair({"audio": audio.encode(clip)}, each) for clip, each in zip(clips, ids, strict=True)]
    labels = torch.tensor([[*each, ours.text.eos_id] for each in ids])
    their_batch = {"input_features": features.to(device), "labels": labels.to(device)}
    return their_batch, ours.chopper(training=True).collate(pairs).to(device)


def make_training(theirs, ours, their_batch, our_batch):
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, fused=True)
    our_optimizer = make_optimizer(ours, [ours.model.transformer, ours.model.encoder], ours.optimizer)

    def train_theirs():
        theirs(**their_batch, use_cache=False).loss.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    def train_ours():
        loss, n_targets = ours.loss(our_batch)
        loss.backward()
        assert divide_gradients(our_optimizer, n_targets).isfinite()
        our_optimizer.step()
        our_optimizer.zero_grad()

    return {"transformers": train_theirs, "anyformer": train_ours}


def make_transcription(theirs, ours, their_batch, our_batch):
    """Calls that give the new ids of every recording."""
    n_new = their_batch["labels"].shape[1] - 1
    prompts = [{"text": written([], opening(ours.text.n_ids))} for _ in their_batch["labels"]]
    generator = ours.decoder.generator

    def run_theirs():
        chosen = {"language": "en", "task": "transcribe", "max_new_tokens": n_new, "do_sample": False}
        return theirs.generate(their_batch["input_features"], **chosen)[:, -n_new:].tolist()

    def run_ours():
        found = generator.generate(prompts, GenerationConfig(n_new), our_batch.inputs)
        return [best.ids for (best,) in found]

    return {"transformers": run_theirs, "anyformer": run_ours}


def check(theirs, ours, clips, device):
    """Raise AssertionError where the two differ on recordings that are filled to 30 seconds."""
    their_batch, our_batch = prepare(ours, clips, device, filled=True)
    for side in (theirs, ours):
        side.eval()
    with torch.no_grad():
        expected = theirs(**their_batch, use_cache=False).loss.item()
        loss, n_targets = ours.loss(our_batch)
        assert abs(loss.item() / n_targets.item() / expected - 1) < 1e-4, "not the same loss"
    expected, found = (run() for run in make_transcription(theirs, ours, their_batch, our_batch).values())
    n_same = sum(one == other for one, other in zip(found, expected, strict=True))
    # Of two tokens that are equal to the last bits either may come first.
    assert n_same >= 0.8 * len(clips), f"only {n_same} of {len(clips)} transcripts are the same"
    assert len({token for row in found for token in row}) > 3, "a text that is always the same token shows little"


def compare_models(options):
    theirs, ours = make_models(options.tiny, options.device)
    for seconds in (3, WHOLE):
        clips = draw_clips([seconds] * options.batch)
        check(theirs, ours, clips, options.device)
        print(f"{seconds}-second recordings, batch {options.batch}, fill f {seconds / WHOLE:.2f}")
        batches = prepare(ours, clips, options.device)
        for what in [each for each in ("transcribe", "train") if each in options.only]:
            is_training = what == "train"
            # Random weights that a step has changed would do as well, but are not the same in both.
            kept = [{name: value.clone() for name, value in side.state_dict().items()} for side in (theirs, ours)]
            for side in (theirs, ours):
                side.train(is_training)
            sides = (make_training if is_training else make_transcription)(theirs, ours, *batches)
            rates = {name: len(clips) / each for name, each in measure(sides, options.rounds, options.device).items()}
            for side, before in zip((theirs, ours), kept, strict=True):
                side.load_state_dict(before)
            ratio = rates["anyformer"] / rates["transformers"]
            print(
                f"  {what:<10}  transformers {rates['transformers']:8.2f} recordings/s  "
                f"anyformer {rates['anyformer']:8.2f}  x {ratio:.2f}, {ratio * seconds / WHOLE:.2f} / f"
            )


# Spectrograms


def compare_mels(options):
    config, device = MelConfig(), options.device
    theirs = torchaudio.transforms.MelSpectrogram(
        RATE, config.window, hop_length=config.hop, n_mels=config.n_mels, norm="slaney", mel_scale="slaney"
    ).to(device)

    def log(power):
        return power.clamp(min=1e-10).log10()

    longest = 2 if options.tiny else 15
    ragged = np.random.default_rng(0).uniform(0.5, longest, 16).tolist()
    for what, seconds in (("3 s", [3]), ("10 s", [10]), ("30 s", [30]), (f"16 of 0.5 to {longest} s", ragged)):
        clips = [clip.to(device) for clip in draw_clips(seconds)]
        whole = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        sides = {
            "torchaudio": lambda clips=clips: [log(theirs(clip)) for clip in clips],
            "anyformer": lambda clips=clips: log_mel(clips, config),
        }
        for found, expected in zip(sides["anyformer"](), sides["torchaudio"](), strict=True):
            expected = expected[:, :-1]
            expected = (expected.clamp(min=expected.max() - 8) + 4) / 4
            assert (found.T - expected).abs().max() < 1e-4, "not the same spectrogram"
        if len(clips) > 1:
            sides["torchaudio, padded"] = lambda whole=whole: log(theirs(whole))
        n_calls = max(round(60 / sum(seconds)), 1)
        times = measure(sides, 3 * options.rounds, device, n_calls)
        told = "  ".join(f"{name} {1000 * each:7.2f} ms" for name, each in times.items())
        ours = times.pop("anyformer")
        ratios = ", ".join(f"x {each / ours:.2f}" for each in times.values())
        fill = f"  fill f {sum(seconds) / len(seconds) / max(seconds):.2f}" if len(clips) > 1 else ""
        print(f"log-mel {what:<20} {told}  {ratios}{fill}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="a model of a moment, to try this file")
    parser.add_argument("--only", nargs="+", choices=("mel", "train", "transcribe"), default=())
    options = parser.parse_args()
    options.only = options.only or ("mel", "train", "transcribe")
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    if "mel" in options.only:
        compare_mels(options)
    if {"train", "transcribe"} & set(options.only):
        compare_models(options)


if __name__ == "__main__":
    main()
