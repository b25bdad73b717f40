// What imports.cjs does, for Nodes whose hooks run in a thread of their own (before 22.15).
import { attempts, isMissingPackage } from "./imports.cjs";

let folders = [];

export function initialize(found) {
  folders = found;
}

export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!isMissingPackage(specifier, error)) throw error;
    for (const [other, parentURL = context.parentURL] of attempts(specifier, folders)) {
      try {
        return await next(other, { ...context, parentURL });
      } catch {
        // Not there.
      }
    }
    throw error;
  }
}
