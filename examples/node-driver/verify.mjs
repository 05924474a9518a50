import { createHmac, timingSafeEqual } from "node:crypto";

/** The JSON payload of a signed webhook. `body` is the raw bytes; throws when the signature does not hold. */
export function verify(secret, headers, body) {
  const id = headers["webhook-id"];
  const sentAt = headers["webhook-timestamp"];
  if (!id || !(Math.abs(Date.now() / 1000 - Number(sentAt)) <= 300)) throw new Error("not signed, or not just now");
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", key).update(`${id}.${sentAt}.`).update(body).digest();
  const genuine = (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const given = Buffer.from(signature.startsWith("v1,") ? signature.slice(3) : "", "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
  if (!genuine) throw new Error("the signature does not hold");
  return JSON.parse(body);
}
