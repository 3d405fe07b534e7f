"""The peers' way to seven numbers: one script a metric, each of which decodes every clip and finds its faces by itself.

For `benchmarks/evaluation.py`, which says what is fair; not to be run. pytorch-fid and syncnet-python are the packages
themselves. FVD, FD, E-FID, emotion and identity are plain scripts around the same networks as ours, as long as a
folder of metrics has them: a loop over clips, a list of features, one formula at the end.

Each peer loads its network when it is made, `gather`s what one side's clips give, and `reduce`s both sides to values.
"""

from __future__ import annotations

import importlib
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from talkforge.benchmarks.frechet import peer, peer_distance
from talkforge.core.counters import Counters
from talkforge.core.landmarks import landmarks_68
from talkforge.core.torchvision_guard import make_torchvision_importable
from talkforge.core.weights import weights_store
from talkforge.datasets.video import open_video, resample
from talkforge.metrics.emo_score import EMOTIONS
from talkforge.metrics.expression_pose import ARKIT_EXPRESSION
from talkforge.models import i3d, mini_xception, mobilenet_v2
from talkforge.models.dlib_face import load_dlib_face
from talkforge.tasks.crop import FaceCropper, Item
from talkforge.tasks.extract_emotion import FER, cut_grey, fer_square
from talkforge.tasks.extract_i3d import WINDOW
from talkforge.tasks.extract_identity import EVERY, face_chip
from talkforge.tasks.faces import Face, Landmarker

BATCH = 16  # pictures in one pass of the light networks, as ours
PEER_TRACK = 20  # frames; a track has more of them, as ours has at least 21
PEER_SCALE = 0.25  # of the picture that its detector sees
PEER_DECODES = 4  # of a clip by syncnet-python: to AVI, to pictures, for scene cuts, and the crop's own AVI


class Peer(ABC):
    """One metric's script."""

    def __init__(self) -> None:
        self.counters = Counters()

    @abstractmethod
    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """What the clips of one side give; `folder` is new and for files on the way."""

    @abstractmethod
    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """Values by metric id."""

    def spared(self, videos: Sequence[Path]) -> float:
        """CPU seconds that the command as people run it needs more than `gather` does for these clips."""
        return 0.0

    def faces(self, video: Path) -> Iterator[tuple[int, np.ndarray, Face]]:
        """Number, frame uint8 (H, W, 3) and largest face of the frames at 25 fps that show one."""
        with open_video(video, counters=self.counters) as stream, Landmarker(self.counters) as landmarker:
            for index, _, frame in resample(stream):
                found = landmarker.detect(frame, index)
                if found:
                    yield index, frame, found[0]

    def pictures(self, video: Path) -> list[np.ndarray]:
        """Face crops uint8 (224, 224, 3) of a clip's frames, by the rule that ours has."""
        cropper, items = FaceCropper(), []
        for index, frame, face in self.faces(video):
            items += cropper.push(Item(index, frame, face))
        items += cropper.flush()
        return [item.subject for item in items if item.subject is not None]


class Fid(Peer):
    """pytorch-fid over the PNG files of a step that dumps face crops."""

    def __init__(self) -> None:
        super().__init__()
        make_torchvision_importable()
        network: Any = importlib.import_module("pytorch_fid.inception")
        weights = weights_store().path("inception-2015-12-05")
        network.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
        self._package = importlib.import_module("pytorch_fid.fid_score")
        self._network = network.InceptionV3([network.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()

    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """Mean and covariance by `compute_statistics_of_path` with its own batches of 50."""
        for video in videos:
            for k, picture in enumerate(self.pictures(video)):
                cv2.imwrite(str(folder / f"{video.stem}-{k:04d}.png"), picture[..., ::-1])
        return self._package.compute_statistics_of_path(str(folder), self._network, 50, 2048, "cpu", 0)

    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """Its Fréchet distance."""
        return {"fid:pytorch-fid": float(self._package.calculate_frechet_distance(*generated, *real))}


class FrechetScript(Peer):
    """Features of every clip, then mean, covariance and SciPy's square root, as FID's code has been copied around."""

    metric: str

    def __init__(self) -> None:
        super().__init__()
        self._distance = peer()

    @abstractmethod
    def rows(self, video: Path) -> np.ndarray:
        """(N, D) features of one clip."""

    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """All rows."""
        return np.concatenate([self.rows(video) for video in videos]).astype(np.float64)

    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """The distance."""
        return {self.metric: peer_distance(self._distance, generated, real)}


class Fvd(FrechetScript):
    """I3D window by window."""

    metric = "fvd:i3d-k400-16f"

    def __init__(self) -> None:
        super().__init__()
        self._network = i3d.load_i3d()

    def rows(self, video: Path) -> np.ndarray:
        """Logits (N, 400) of the whole windows of 16 frames."""
        frames = i3d.prepare_frames(np.stack(self.pictures(video)))
        windows = frames[: len(frames) // WINDOW * WINDOW].unflatten(0, (-1, WINDOW)).transpose(1, 2)
        with torch.inference_mode():
            return torch.cat([self._network(window[None]) for window in windows]).numpy()


class Fd(FrechetScript):
    """MobileNetV2 frame by frame."""

    metric = "fd:mobilenet-v2"

    def __init__(self) -> None:
        super().__init__()
        self._network = mobilenet_v2.load_mobilenet_v2()

    def rows(self, video: Path) -> np.ndarray:
        """Features (N, 1280)."""
        frames = mobilenet_v2.prepare_frames(np.stack(self.pictures(video)))
        with torch.inference_mode():
            return torch.cat([self._network.features_1280(part) for part in frames.split(BATCH)]).numpy()


class EFid(FrechetScript):
    """The detector's own expression coefficients."""

    metric = "e_fid:arkit52"

    def rows(self, video: Path) -> np.ndarray:
        """Coefficients (N, 51)."""
        return np.stack([face.blendshapes[ARKIT_EXPRESSION] for _, _, face in self.faces(video)])


class Emotion(Peer):
    """mini-Xception on the grey face of every frame; the label is in the file's name."""

    def __init__(self) -> None:
        super().__init__()
        self._network = mini_xception.load_mini_xception()

    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """By emotion, each clip's share of frames whose most probable class is the label."""
        shares = defaultdict(list)
        for video in videos:
            label = next(name for name in EMOTIONS if name in video.stem)
            cut = [cut_grey(frame, fer_square(face.box)) for _, frame, face in self.faces(video)]
            inputs = mini_xception.prepare(np.stack([picture for picture in cut if picture is not None]))
            with torch.inference_mode():
                best = torch.cat([self._network(part).softmax(1).argmax(1) for part in inputs.split(BATCH)])
            shares[label].append(float((best == FER.params["classes"].index(label)).float().mean()))
        return shares

    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """Mean over emotions of the mean over clips."""
        return {"emo_score:fer2013-frame-accuracy": float(np.mean([np.mean(part) for part in generated.values()]))}


class Identity(Peer):
    """dlib's network on every fifth frame, as ours."""

    def __init__(self) -> None:
        super().__init__()
        self._network = load_dlib_face()

    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """Unit vectors (K, 128) of each clip."""
        clips = []
        for video in videos:
            chosen = [(frame, face) for index, frame, face in self.faces(video) if index % EVERY == 0]
            chips = np.stack([face_chip(frame, landmarks_68(face.points)[:, :2]) for frame, face in chosen])
            rows = self._network(torch.from_numpy(chips)).numpy().astype(np.float64)
            clips.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return clips

    def spared(self, videos: Sequence[Path]) -> float:
        """The network on the other four frames of five."""
        seconds = 0.0
        for video in videos:
            for index, frame, face in self.faces(video):
                begun = time.process_time()
                if index % EVERY:
                    chip = face_chip(frame, landmarks_68(face.points)[:, :2])
                    self._network(torch.from_numpy(chip[None]))
                seconds += time.process_time() - begun
        return seconds

    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """Mean over clips of the mean cosine."""
        pairs = zip(real, generated, strict=True)
        return {"csim:dlib-128": float(np.mean([(a * b).sum(axis=1).mean() for a, b in pairs]))}


class Lse(Peer):
    """syncnet-python's whole pipeline, with MediaPipe's detector in the place of S3FD, which is far heavier."""

    def __init__(self) -> None:
        super().__init__()
        import imageio_ffmpeg

        module = importlib.import_module("syncnet_python.syncnet_pipeline")
        network = importlib.import_module("syncnet_python.SyncNetModel").S()
        network.load_state_dict(torch.load(weights_store().path("syncnet-v2"), weights_only=True))
        instance = importlib.import_module("syncnet_python.SyncNetInstance").SyncNetInstance
        self._pipeline = module.SyncNetPipeline.__new__(module.SyncNetPipeline)
        self._pipeline.cfg, self._pipeline.device = module.PipelineConfig(min_track=PEER_TRACK), "cpu"
        self._pipeline.syncnet = instance(network.eval(), device="cpu")
        self._program = imageio_ffmpeg.get_ffmpeg_exe()

    def gather(self, videos: Sequence[Path], folder: Path) -> Any:
        """(N, 2) confidence and distance of each clip."""
        programs = folder.with_name(f"{folder.name}-programs")
        programs.mkdir()
        (programs / "ffmpeg").symlink_to(self._program)
        os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return np.array([self._clip(video, folder / video.stem) for video in videos])

    def _clip(self, video: Path, folder: Path) -> tuple[float, float]:
        self.counters.decodes += PEER_DECODES
        numbers = iter(range(1_000_000))
        with Landmarker(self.counters) as landmarker:

            def boxes(frame: np.ndarray, **_: Any) -> np.ndarray:
                found = landmarker.detect(frame, next(numbers))
                return np.array([[*face.box, 1.0] for face in found[:1]]).reshape(-1, 5)

            self._pipeline.s3fd = SimpleNamespace(detect_faces=boxes)
            with torch.inference_mode():
                found = self._pipeline.inference(str(video), None, cache_dir=str(folder))
        if not found[0]:
            raise RuntimeError(f"syncnet-python found no track in {video.name}")
        return float(found[3]), float(found[4])

    def spared(self, videos: Sequence[Path]) -> float:
        """Its own detector, S3FD at a quarter of the picture, less the one that stands in for it."""
        network = importlib.import_module("syncnet_python.detectors.s3fd.nets").S3FDNet(device="cpu")
        with torch.no_grad():
            for layer in network.conf:  # random weights that see no face: boxes cost nothing
                layer.bias[-1] = -10.0
        detector = importlib.import_module("syncnet_python.detectors.s3fd").S3FD(network, device="cpu")
        seconds = 0.0
        for video in videos:
            with open_video(video, counters=Counters()) as stream, Landmarker(Counters()) as landmarker:
                for index, _, frame in resample(stream):
                    begun = time.process_time()
                    detector.detect_faces(frame, conf_th=0.9, scales=[PEER_SCALE])
                    between = time.process_time()
                    landmarker.detect(frame, index)
                    seconds += 2 * between - begun - time.process_time()
        return seconds

    def reduce(self, real: Any, generated: Any) -> dict[str, float]:
        """Means over generated clips."""
        confidence, distance = generated.mean(axis=0)
        return {"lse_c:syncnet-v2-direct": float(confidence), "lse_d:syncnet-v2-direct": float(distance)}


PEERS: dict[str, type[Peer]] = {
    "fid": Fid,
    "fvd": Fvd,
    "fd": Fd,
    "lse": Lse,
    "e-fid": EFid,
    "emotion": Emotion,
    "identity": Identity,
}
