/* password: unicodePwd's encoding (MS-ADTS 3.1.1.3.1.5), the rules of passfilt.dll, history. Pure. */
#ifndef MOCK_DIRECTORY_PASSWORD_H
#define MOCK_DIRECTORY_PASSWORD_H

#include "forest.h"

/* Of a UTF-8 password. */
void password_digest(struct value password, struct digest *ret_digest);
bool digest_equal(const struct digest *a, const struct digest *b);

/* unicodePwd's octets: quotes around UTF-16LE. */
enum unquote { UNQUOTE_OK, UNQUOTE_ODD, UNQUOTE_NO_QUOTES };
/* `ret_password`: UTF-8 in the arena; `ret_units`: its length as policies count it, in UTF-16 units. */
enum unquote password_unquote(struct arena *arena, struct value octets, struct value *ret_password, size_t *ret_units);

/* Length, complexity and the filter's words. */
bool password_acceptable(struct forest *forest, struct arena *arena, const struct policy *policy, const struct account *account, struct value password, size_t units);
bool password_in_history(const struct account *account, const struct policy *policy, const struct digest *digest);
bool password_too_young(const struct account *account, const struct policy *policy, int64_t now);
void password_store(struct account *account, const struct digest *digest, int64_t now);

bool duration_from_text(const char *text, int64_t *ret_ticks);

#endif
