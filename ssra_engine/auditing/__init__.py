"""The audit page: people grade a blind sample of a run in their browser.

`pairs` draws what is graded, `answers` keeps what was answered, `book` turns answers into labels,
`agreement` into figures; `page` is the web application and `serving` runs it on loopback.
"""
