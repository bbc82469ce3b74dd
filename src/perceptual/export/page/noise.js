// The noise pattern of perceptual.functional.noise_tile. It is computed here, because it is larger than the network.
//
// The numbers are those of torch.randn with the seed 0: the Mersenne Twister of Matsumoto and Nishimura (1998), and the
// method of Box and Muller in groups of 16.

const SIDE = 1024; // NOISE_TILE

function* twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < 624; i++) {
      const joined = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
    }
    for (let y of state) {
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      yield (y ^ (y >>> 18)) >>> 0;
    }
  }
}

function normals(numbers, count) {
  const made = new Float32Array(count);
  for (let i = 0; i < count; i++) made[i] = (numbers.next().value & 0xffffff) / 0x1000000;
  for (let i = 0; i < count; i += 16) {
    for (let j = i; j < i + 8; j++) {
      const radius = Math.sqrt(-2 * Math.log(1 - made[j])), angle = 2 * Math.PI * made[j + 8];
      made[j] = radius * Math.cos(angle);
      made[j + 8] = radius * Math.sin(angle);
    }
  }
  return made;
}

// Bicubic interpolation (a = -0.75) of one axis, continued across the edges: count lines of n numbers, with these steps.
function enlarged(from, n, count, along, across) {
  const size = SIDE / n, to = new Float32Array(count * SIDE);
  const near = (t) => (1.25 * t - 2.25) * t * t + 1, far = (t) => ((-0.75 * t + 3.75) * t - 6) * t + 3;
  for (let at = 0; at < SIDE; at++) {
    const place = (at + 0.5) / size - 0.5, first = Math.floor(place), t = place - first;
    const taps = [far(t + 1), near(t), near(1 - t), far(2 - t)];
    for (let line = 0; line < count; line++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += taps[k] * from[((first - 1 + k + n) % n) * along + line * across];
      to[across === 1 ? at * count + line : line * SIDE + at] = sum;
    }
  }
  return to;
}

// The pattern times `amount`, SIDE x SIDE numbers.
export function noiseTile(amount) {
  const numbers = twister(0), total = normals(numbers, SIDE * SIDE);
  for (const size of [4, 16]) {
    const n = SIDE / size, rows = enlarged(normals(numbers, n * n), n, n, n, 1); // (SIDE, n)
    enlarged(rows, n, SIDE, 1, n).forEach((value, i) => { total[i] += value; });
  }
  return total.map((value) => (amount * value) / Math.sqrt(3));
}
