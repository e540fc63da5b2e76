/* question: what a portal asks for (POST /v1/operations; proto/README.md section 9, openapi.yaml). Pure. */
#ifndef SERVICE_QUESTION_H
#define SERVICE_QUESTION_H

#include "service/operations.h"

/* Into `question`, which is all zero before. NULL where `body`, an object, is well-formed; else the member at fault, as text for the caller. `question` borrows from `body`, and waits `wait_limit_ms`
 * at most; its `content` is not set. subject_clear(&question->subject) in either case. */
const char *question_read(json_t *body, int64_t wait_limit_ms, struct operation_question *question);

#endif
