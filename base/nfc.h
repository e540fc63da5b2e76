/* nfc: whether a text is in Unicode's Normalization Form C (UAX #15). Nothing is normalized for anybody: a password is written as it came, and this only tells that another keyboard
 * may produce other code points for the same letters. Pure; what is worked on is a secret: no copy of the text stays on the heap or on the stack. */
#ifndef BASE_NFC_H
#define BASE_NFC_H

#include <stdbool.h>

#include "base/bytes.h"

/* `text` is valid UTF-8. STATUS_AGENT_INTERNAL when memory is out. */
enum status nfc_check(struct bytes text, bool *ret_is_nfc) MUST_USE;

#endif
