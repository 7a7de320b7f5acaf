// libsignal-client as a peer in lines of JSON: the operations of crypto/examples/crypto_peer.rs that make sense for it,
// and `bench`, which does one operation many times and says how long that took.
'use strict';

const readline = require('node:readline');
const S = require('@signalapp/libsignal-client');

// State that can be kept in memory is kept in memory, but records are saved as bytes, as every user of the library does.
class Sessions extends S.SessionStore {
  records = new Map();
  async saveSession(name, record) { this.records.set(key(name), record.serialize()); }
  async getSession(name) {
    const record = this.records.get(key(name));
    return record ? S.SessionRecord.deserialize(record) : null;
  }
  async getExistingSessions(names) { return Promise.all(names.map((name) => this.getSession(name))); }
}

class Identities extends S.IdentityKeyStore {
  constructor() {
    super();
    this.pair = S.PrivateKey.generate();
    this.registration = 1 + Math.floor(Math.random() * 16000);
    this.known = new Map();
  }
  async getIdentityKey() { return this.pair; }
  async getLocalRegistrationId() { return this.registration; }
  async saveIdentity(name, identity) { this.known.set(key(name), identity); return false; }
  async isTrustedIdentity() { return true; }
  async getIdentity(name) { return this.known.get(key(name)) || null; }
}

class Prekeys extends S.PreKeyStore {
  records = new Map();
  removed = null;
  async savePreKey(id, record) { this.records.set(id, record.serialize()); }
  async getPreKey(id) {
    if (!this.records.has(id)) throw new Error(`unknown prekey ${id}`);
    return S.PreKeyRecord.deserialize(this.records.get(id));
  }
  async removePreKey(id) { this.records.delete(id); this.removed = id; }
}

class SignedPrekeys extends S.SignedPreKeyStore {
  records = new Map();
  async saveSignedPreKey(id, record) { this.records.set(id, record.serialize()); }
  async getSignedPreKey(id) {
    if (!this.records.has(id)) throw new Error(`unknown signed prekey ${id}`);
    return S.SignedPreKeyRecord.deserialize(this.records.get(id));
  }
}

const key = (name) => `${name.name()}.${name.deviceId()}`;
const encode = (bytes) => Buffer.from(bytes).toString('base64');
const decode = (text) => Buffer.from(text, 'base64');
const publicKey = (text) => S.PublicKey.deserialize(decode(text));

class Peer {
  sessions = new Sessions();
  identities = new Identities();
  prekeys = new Prekeys();
  signed = new SignedPrekeys();
  next = 1;

  async bundle({ n }) {
    const pair = this.identities.pair;
    if (!this.signedPrekey) {
      const made = S.PrivateKey.generate();
      const signature = pair.sign(made.getPublicKey().serialize());
      this.signedPrekey = S.SignedPreKeyRecord.new(1, 0, made.getPublicKey(), made, signature);
      await this.signed.saveSignedPreKey(1, this.signedPrekey);
    }
    const pks = [];
    for (let count = 0; count < n; count += 1) {
      const made = S.PrivateKey.generate();
      const id = this.next++;
      await this.prekeys.savePreKey(id, S.PreKeyRecord.new(id, made.getPublicKey(), made));
      pks.push([id, encode(made.getPublicKey().serialize())]);
    }
    return {
      ik: encode(pair.getPublicKey().serialize()),
      spkid: 1,
      spk: encode(this.signedPrekey.publicKey().serialize()),
      sig: encode(this.signedPrekey.signature()),
      pks,
    };
  }

  async process(r) {
    const bundle = S.PreKeyBundle.new(
      1, r.dev, r.pkid, publicKey(r.pk), r.spkid, publicKey(r.spk), decode(r.sig), publicKey(r.ik),
    );
    await S.processPreKeyBundle(bundle, address(r), this.sessions, this.identities);
    return { ok: 1 };
  }

  async encrypt(pt, to) {
    const message = await S.signalEncrypt(pt, to, this.sessions, this.identities);
    return { kex: message.type() === S.CiphertextMessageType.PreKey, ct: message.serialize() };
  }

  async decrypt(kex, ct, from) {
    if (kex) {
      const message = S.PreKeySignalMessage.deserialize(ct);
      return S.signalDecryptPreKey(message, from, this.sessions, this.identities, this.prekeys, this.signed);
    }
    return S.signalDecrypt(S.SignalMessage.deserialize(ct), from, this.sessions, this.identities);
  }

  async enc(r) {
    const { kex, ct } = await this.encrypt(decode(r.pt), address(r));
    return { kex, ct: encode(ct) };
  }

  async dec(r) {
    this.prekeys.removed = null;
    const pt = await this.decrypt(r.kex, decode(r.ct), address(r));
    return { pt: encode(pt), used_prekey: this.prekeys.removed };
  }
}

const address = ({ name, dev }) => S.ProtocolAddress.new(name, dev);

// Nanoseconds for one operation, the best of several batches.
async function timed(count, batches, prepare, operation) {
  let best = Infinity;
  for (let batch = 0; batch < batches; batch += 1) {
    const inputs = [];
    for (let index = 0; index < count; index += 1) inputs.push(await prepare(index));
    const start = process.hrtime.bigint();
    for (const input of inputs) await operation(input);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / count);
  }
  return best;
}

async function bench({ material }) {
  const pt = decode(material);
  const [alice, bob] = [new Peer(), new Peer()];
  const [toAlice, toBob] = [S.ProtocolAddress.new('alice', 1), S.ProtocolAddress.new('bob', 1)];
  const bundleOf = async (peer) => {
    const { ik, spkid, spk, sig, pks: [[pkid, pk]] } = await peer.bundle({ n: 1 });
    return { ik, spkid, spk, sig, pkid, pk };
  };
  const start = async (from, to, dev) => {
    const b = await bundleOf(bob);
    const bundle = S.PreKeyBundle.new(
      1, dev, b.pkid, publicKey(b.pk), b.spkid, publicKey(b.spk), decode(b.sig), publicKey(b.ik),
    );
    return () => S.processPreKeyBundle(bundle, to, from.sessions, from.identities);
  };
  const figures = {};
  figures.session_start = await timed(200, 5, () => start(alice, toBob, 1), (run) => run());

  await (await start(alice, toBob, 1))();
  const first = await alice.encrypt(pt, toBob);
  await bob.decrypt(first.kex, first.ct, toAlice);
  const answer = await bob.encrypt(pt, toAlice);
  await alice.decrypt(answer.kex, answer.ct, toBob);
  figures.decrypt = await timed(500, 5, () => alice.encrypt(pt, toBob), (m) => bob.decrypt(m.kex, m.ct, toAlice));
  figures.encrypt_1 = await timed(500, 5, () => toBob, (to) => alice.encrypt(pt, to));

  const many = [];
  for (let dev = 1; dev <= 100; dev += 1) {
    const to = S.ProtocolAddress.new('many', dev);
    const other = new Peer();
    const b = await bundleOf(other);
    const bundle = S.PreKeyBundle.new(
      1, dev, b.pkid, publicKey(b.pk), b.spkid, publicKey(b.spk), decode(b.sig), publicKey(b.ik),
    );
    await S.processPreKeyBundle(bundle, to, alice.sessions, alice.identities);
    const m = await alice.encrypt(pt, to);
    await other.decrypt(m.kex, m.ct, toAlice);
    const back = await other.encrypt(pt, toAlice);
    await alice.decrypt(back.kex, back.ct, to);
    many.push(to);
  }
  for (const count of [10, 100]) {
    figures[`encrypt_${count}`] = await timed(
      Math.ceil(1000 / count), 5, () => many.slice(0, count),
      async (to) => { for (const one of to) await alice.encrypt(pt, one); },
    );
  }
  const b = await bundleOf(bob);
  const [identity, signedPrekey, signature] = [publicKey(b.ik), decode(b.spk), decode(b.sig)];
  figures.bundle_verify = await timed(500, 5, () => undefined, () => identity.verify(signedPrekey, signature));
  return { figures };
}

async function main() {
  const peer = new Peer();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      const request = JSON.parse(line);
      answer = request.op === 'bench' ? await bench(request) : await peer[request.op](request);
    } catch (error) {
      answer = { err: error.name, text: String(error.message) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

main();
