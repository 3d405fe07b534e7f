// Videos of one clip on one clock. Each frame is aimed at in its middle, so that rounding shows no neighbour.
const TalkForgeTransport = (() => {
  "use strict";

  const HARD = 0.25; // seconds apart from which a video is set anew instead of hurried
  const SOFT = 0.005; // seconds apart that nobody sees
  const LOOKS = 5; // at a video's clock before it is believed: that of a heard one jumps when the machine is busy

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  return class {
    constructor(videos, fps, changed) {
      this.videos = videos;
      this.fps = fps;
      this.changed = changed;
      this.speed = 1;
      this.sound = 1;
      this.repeat = false;
      this.playing = false;
      this.wanted = new Map();
      this.seen = new Map();
      for (const video of videos) {
        video.addEventListener("loadedmetadata", () => this.measured());
        video.addEventListener("seeked", () => this.arrived(video));
        video.addEventListener("error", () => { if (video.getAttribute("src")) video.dispatchEvent(new CustomEvent("unplayable")); });
      }
    }

    load(sources) {
      this.pause();
      this.wanted.clear();
      this.videos.forEach((video, k) => {
        video.hidden = !sources[k];
        if (sources[k]) video.src = sources[k];
        else video.removeAttribute("src");
        video.load();
      });
      this.at = 0;
      this.measured();
    }

    get usable() { return this.videos.filter((video) => video.readyState > 0 && Number.isFinite(video.duration)); }

    get duration() { return Math.max(0, ...this.usable.map((video) => video.duration)); }

    get frames() { return Math.max(1, Math.round(this.duration * this.fps)); }

    get frame() { return clamp(Math.floor(this.at * this.fps + 1e-6), 0, this.frames - 1); }

    // The heard one leads, since changes of its pace would be heard; where it has ended, the longest.
    get leader() {
      const running = this.usable.filter((video) => !video.ended);
      const heard = this.videos[this.sound];
      if (running.includes(heard)) return heard;
      return running.sort((a, b) => b.duration - a.duration)[0];
    }

    measured() {
      this.hear(this.sound);
      if (!this.playing) this.seek(this.frame);
    }

    hear(which) {
      this.sound = which;
      this.videos.forEach((video, k) => { video.muted = k !== which; });
    }

    pace(speed) {
      this.speed = speed;
      for (const video of this.videos) video.playbackRate = speed;
    }

    seek(frame) {
      this.pause();
      this.at = clamp((clamp(frame, 0, this.frames - 1) + 0.5) / this.fps, 0, Math.max(this.duration, 0));
      for (const video of this.usable) this.aim(video, this.at);
      this.changed(this);
    }

    aim(video, time) {
      const target = clamp(time, 0, Math.max(0, video.duration - 0.5 / this.fps));
      if (video.seeking) this.wanted.set(video, target); // one seek at a time: a drag asks for hundreds
      else if (Math.abs(video.currentTime - target) > 1e-4) video.currentTime = target;
    }

    arrived(video) {
      const target = this.wanted.get(video);
      this.wanted.delete(video);
      if (target !== undefined && !this.playing) video.currentTime = target;
    }

    settled() {
      const busy = this.usable.filter((video) => video.seeking || video.readyState < 3);
      return Promise.all(busy.map((video) => new Promise((done) => {
        const check = () => {
          if (video.seeking || video.readyState < 3) return;
          for (const name of ["seeked", "canplay", "error"]) video.removeEventListener(name, check);
          done();
        };
        for (const name of ["seeked", "canplay", "error"]) video.addEventListener(name, check);
      })));
    }

    async play() {
      if (!this.usable.length || this.playing) return;
      this.seek(this.frame >= this.frames - 1 ? 0 : this.frame);
      this.playing = true;
      this.changed(this);
      await this.settled();
      if (!this.playing) return;
      this.pace(this.speed);
      this.seen.clear();
      const started = this.usable.filter((video) => video.duration > this.at).map((video) => video.play());
      try {
        await Promise.all(started);
      } catch (refusal) {
        if (refusal.name !== "AbortError") throw refusal; // a pause that came first
      }
      if (this.playing) requestAnimationFrame(() => this.tick());
    }

    pause() {
      if (!this.playing) return;
      this.playing = false;
      for (const video of this.videos) video.pause();
      this.changed(this);
    }

    halt() {
      if (!this.playing) return;
      this.pause();
      this.seek(this.frame); // all stand on the same frame
    }

    tick() {
      if (!this.playing) return;
      const leader = this.leader;
      if (!leader) {
        this.finished();
        return;
      }
      this.at = leader.currentTime;
      for (const video of this.usable) if (video !== leader) this.follow(video, leader);
      this.changed(this);
      requestAnimationFrame(() => this.tick());
    }

    follow(video, leader) {
      if (video.ended || leader.currentTime >= video.duration || video.seeking) return;
      const seen = this.seen.get(video) ?? [];
      seen.push(video.currentTime - leader.currentTime);
      if (seen.length > LOOKS) seen.shift();
      this.seen.set(video, seen);
      const apart = [...seen].sort((a, b) => a - b)[Math.floor(seen.length / 2)];
      if (Math.abs(apart) > HARD) {
        video.currentTime = leader.currentTime;
        seen.length = 0;
      }
      const rate = Math.abs(apart) < SOFT ? 1 : clamp(1 - 5 * apart, 0.5, 1.5);
      if (Math.abs(video.playbackRate - this.speed * rate) > 0.01) video.playbackRate = this.speed * rate;
    }

    finished() {
      this.pause();
      this.seek(this.repeat ? 0 : this.frames - 1);
      if (this.repeat) this.play();
    }
  };
})();
